"""ComfyUI's weights, as the tool itself read hundreds of prompts."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.text.prompt import Span
from sdscratch.text.syntax.comfyui import spans
from support.shared import shared_path

SYNTAX = st.text(st.sampled_from("ab ,:()\\.1_5-naninf"), max_size=60)


def test_weights_are_comfyuis() -> None:
    rows = json.loads(shared_path("golden", "prompts_comfy.json").read_text("utf-8"))["rows"]
    for row in rows:
        found = [[span.text, span.weight] for span in spans(row["prompt"])]
        wanted = [[text, float(weight)] for text, weight in row["segments"]]
        assert repr(found) == repr(wanted), row["prompt"]  # repr: nan is nan
    assert len(rows) > 300


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a) (b:2) (c:3)", [("a) (b:2) (c:3)", 1.0)]),
        ("a) (b (c:3)", [("a) (b ", 1.0), ("c", 3.0)]),
        ("((a:2) b) c", [("a", 2.0), (" b", 1.1), (" c", 1.0)]),
        ("(:2)", [(":2", 1.1)]),
        ("(a:\\(2\\))", [("a:(2)", 1.1)]),
        ("()", []),
    ],
)
def test_more_weights(prompt: str, wanted: list[tuple[str, float]]) -> None:
    assert [(span.text, span.weight) for span in spans(prompt)] == wanted


@given(SYNTAX | st.text())
def test_any_text_is_read_and_its_words_are_kept_in_order(text: str) -> None:
    letters = iter(text)
    assert all(letter in letters for span in spans(text) for letter in span.text)


@given(st.text(st.characters(exclude_characters="()"), min_size=1))
def test_text_without_brackets_is_one_span(text: str) -> None:
    assert spans(text) == (Span(text),)


@pytest.mark.parametrize(
    "text",
    ["(" * 2000, ")" * 2000, "(" * 1000 + ")" * 1000, "(a" * 1000 + ":2)" * 1000, "((a" * 700 + ")" * 700],
)
def test_deep_nests_take_no_time(text: str) -> None:
    before = time.process_time()
    spans(text)
    assert time.process_time() - before < 1.0
