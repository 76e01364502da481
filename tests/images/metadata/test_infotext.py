"""The web UIs' infotext is read as A1111 and Forge read it: their own results, number by number."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sdscratch.images.metadata.infotext import pairs, parse_infotext, quote, unquote
from sdscratch.images.metadata.settings import settings, uses_emphasis
from support.shared import shared_path


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(shared_path("golden", "infotext.json").read_text())  # type: ignore[no-any-return]


def test_every_text_becomes_the_settings_that_the_web_uis_read(golden: dict[str, Any]) -> None:
    assert len(golden["rows"]) > 70
    for row in golden["rows"]:
        assert settings(row["text"]) == row["parsed"], row["text"]


def test_the_pairs_of_every_last_line_are_theirs(golden: dict[str, Any]) -> None:
    for row in golden["rows"]:
        last = row["text"].strip().rpartition("\n")[2]
        assert [list(pair) for pair in pairs(last)] == row["last_line_pairs"], row["text"]


def test_prompts_are_theirs_without_the_defaults(golden: dict[str, Any]) -> None:
    for row in golden["rows"]:
        found = parse_infotext(row["text"])
        if "Hypernet" not in found.parameters:  # which they add to the prompt
            assert found.prompt == row["parsed"]["Prompt"], row["text"]
        assert found.negative_prompt == row["parsed"]["Negative prompt"], row["text"]


def test_every_value_is_quoted_as_theirs(golden: dict[str, Any]) -> None:
    assert len(golden["quote"]) > 10
    for value, written in golden["quote"]:
        assert (quote(value), type(quote(value))) == (written, type(written))
        if isinstance(value, str) and written != value:
            assert unquote(written) == value


TEXT = "a fox\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"


@pytest.mark.parametrize(
    "text",
    [
        TEXT + "\n",
        TEXT + "\n\n \n",
        "\n" + TEXT,
        TEXT.replace("\n", "\r\n") + "\r\n",
        TEXT.replace("\n", "\n  "),
        TEXT.replace("\n", "\n\t"),
        TEXT.replace("\n", " \n"),
    ],
)
def test_line_ends_and_indents_lose_nothing(text: str) -> None:
    assert parse_infotext(text) == parse_infotext(TEXT)
    assert parse_infotext(text).parameters["Seed"] == "5"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", False), ("(cat)", True), ("[cat]", True), ("(cat:1.0)", False), ("(cat:1)", False),
        ("((cat:0.5):2)", False), ("a BREAK b", False), ("(BREAK)", False), ("(a", True), ("a)", False),
        (r"\(cat\)", False), ("", False), ("()", False), ("([cat])", False), ("(a:b", True),
        ("[a:b:0.5]", True),
    ],
)  # fmt: skip
def test_emphasis_is_any_weight_but_one(prompt: str, expected: bool) -> None:
    assert uses_emphasis(prompt) is expected


@pytest.mark.parametrize(
    "piece", ["(", "[", "(a", "a:", 'aa: "', 'aa: "bb: \\",', "\\", "Negative prompt:\n"]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    settings(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("version", "switches"),
    [
        ("1.5.2", {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"}),
        ("v1.6.0", {"Downcast alphas_cumprod"}),
        ("v1.6.0-RC-3-gabc", {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"}),
        ("v1.7.0-224-gabc", {"Downcast alphas_cumprod"}),
        ("v1.7.0-225-gabc", set()),
        ("v1.10.1", set()),
        ("nothing", set()),
    ],
)
def test_an_old_version_turns_its_switches_on(version: str, switches: set[str]) -> None:
    text = f"a [cat:dog:0.5]\nSteps: 1, Sampler: DDIM, Seed: 5, Version: {version}"
    known = {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"}
    assert settings(text).keys() & known == switches
