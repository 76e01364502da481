"""A1111's weights and AND, as the tool itself read hundreds of prompts; and what it cannot read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.text.prompt import Span
from sdscratch.text.syntax import a1111, kohya, sdcpp
from support.shared import shared_path

# Texts that are mostly syntax.
SYNTAX = st.text(st.sampled_from("ab ,:|()[]\\.\n1.25+-eBREAKND\u3000"), max_size=60)
WEIGHTS = (a1111.spans, kohya.spans, sdcpp.spans)


def rows() -> list[Any]:
    read: list[Any] = json.loads(shared_path("golden", "prompts_a1111.json").read_text("utf-8"))["rows"]
    return read


def test_weights_are_a1111s() -> None:
    compared = [row for row in rows() if isinstance(row["attention"], list)]
    for row in compared:
        spans = a1111.spans(row["prompt"])
        assert [[span.text, span.weight] for span in spans] == row["attention"], row["prompt"]
        assert [span.breaks for span in spans] == [part == ["BREAK", -1] for part in row["attention"]]
    assert len(compared) > 270


def test_what_a1111_fails_at_is_text() -> None:
    failed = [row["prompt"] for row in rows() if isinstance(row["attention"], dict)]
    assert failed
    for prompt in failed:
        assert a1111.spans(prompt) == (Span(prompt),)


def test_parts_are_a1111s() -> None:
    for row in rows():
        parts = [[part.text, part.weight] for part in a1111.parts(row["prompt"])]
        assert parts == row["multicond"], row["prompt"]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("(a:1.2.3) (b:2)", [("(a:1.2.3) ", 1.0), ("b", 2.0)]),
        ("((a:1.2.3) b:2)", [("(a:1.2.3) b", 2.0)]),
        ("([a:.) b]", [("(", 1.0), ("a:.) b", 1 / 1.1)]),
        ("(a:" + "9" * 400 + ")", [("(a:" + "9" * 400 + ")", 1.0)]),
        ("(a:\u0663)", [("a", 3.0)]),
    ],
)
def test_a_weight_that_is_no_number_makes_its_brackets_text(
    prompt: str, spans: list[tuple[str, float]]
) -> None:
    assert [(span.text, span.weight) for span in a1111.spans(prompt)] == spans


@given(SYNTAX | st.text())
def test_any_text_is_read_and_its_words_are_kept_in_order(text: str) -> None:
    for read in WEIGHTS:
        spans = read(text)
        assert spans
        said = "".join(span.text for span in spans)
        letters = iter(text + "BREAK" * text.count("BREAK"))  # kohya's and A1111's breaks are their own words
        assert all(letter in letters for letter in said)
    assert a1111.parts(text)


@given(st.text(st.characters(exclude_characters="()[]\\:")).filter(lambda text: "BREAK" not in text))
def test_text_without_syntax_is_one_span(text: str) -> None:
    for read in WEIGHTS:
        assert read(text) == (Span(text),)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.01, 3.0)), min_size=1))
def test_weights_are_the_numbers_written(words: list[tuple[str, float]]) -> None:
    prompt = "-".join(f"({word}:{weight:.6f})" for word, weight in words)
    spans = [span for span in a1111.spans(prompt) if span.weight != 1.0 or span.text != "-"]
    written = [float(f"{weight:.6f}") for _, weight in words if float(f"{weight:.6f}") != 1.0]
    assert [span.weight for span in spans if span.weight != 1.0] == written


@pytest.mark.parametrize(
    "text", ["(" * 2000, "[" * 2000, "(a" * 1000, "(a" * 500 + ":2)" * 500, " \n" * 2000]
)
def test_deep_nests_take_no_time(text: str) -> None:
    before = time.process_time()
    for read in WEIGHTS:
        read(text)
    a1111.parts(text)
    assert time.process_time() - before < 1.0


def test_kohyas_breaks_stay_breaks_in_brackets_and_within_words() -> None:
    def read(text: str) -> list[tuple[str, float, bool]]:
        return [(span.text, span.weight, span.breaks) for span in kohya.spans(text)]

    assert read("(a BREAK b:1.2)") == [("a ", 1.2, False), ("BREAK", 1.2, True), (" b", 1.2, False)]
    assert read("xBREAKy") == [("x", 1.0, False), ("BREAK", 1.0, True), ("y", 1.0, False)]
    assert read("a (b : 1.2 )") == [("a ", 1.0, False), ("b : 1.2 ", 1.1, False)]


def test_stable_diffusion_cpps_escapes_and_breaks() -> None:
    def read(text: str) -> list[tuple[str, float, bool]]:
        return [(span.text, span.weight, span.breaks) for span in sdcpp.spans(text)]

    assert read(r"\(a\) \[b\]") == [(r"(a\) \[b\]", 1.0, False)]
    assert read("a BREAK b") == [("a ", 1.0, False), ("BREAK", -1.0, True), (" b", 1.0, False)]
    assert read("BREAK(BREAK:1)") == [("BREAKBREAK", -1.0, False)]
    assert read("aBREAKb") == [("aBREAKb", 1.0, False)]
