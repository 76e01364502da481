"""A1111's prompt editing, as the tool itself read hundreds of prompts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.errors import UsageError
from sdscratch.text.syntax.editing import check_edits, stages
from support.shared import shared_path

SYNTAX = st.text(st.sampled_from("ab ,:|()[]\\.\n1.25+-e"), max_size=60)


def rows() -> list[Any]:
    read: list[Any] = json.loads(shared_path("golden", "prompts_a1111.json").read_text("utf-8"))["rows"]
    return read


def read(prompt: str, steps: int, **more: Any) -> list[list[Any]]:
    return [[stage.end, stage.text] for stage in stages(prompt, steps, **more)]


def test_stages_are_a1111s() -> None:
    for row in rows():
        prompt = row["prompt"]
        assert read(prompt, 20) == row["schedule_20"], prompt
        assert read(prompt, 10, first_pass=20) == row["schedule_hires_20_10"], prompt
        old = row.get("schedule_old_20", row["schedule_20"])
        assert read(prompt, 20, old_timeline=True) == old, prompt
    assert sum(len(row["schedule_20"]) > 1 for row in rows()) > 50


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a [b:c:0.25] d", [[10, "a b d"], [40, "a c d"]]),
        ("[a:b:2.5e-1]", [[10, "a"], [40, "b"]]),
        ("[a:b:1e999] [c:d:-1e999]", [[40, "a d"]]),
        ("a | b [c:d:8]", [[40, "a | b [c:d:8]"]]),
        ("[a:b:8] \\", [[40, "[a:b:8] \\"]]),
        ("[a:b:8", [[40, "[a:b:8"]]),
        # Groups next to stray brackets: which reading the tool's parser takes.
        ("[a:3][", [[3, "["], [40, "a["]]),
        ("[a:3][[", [[40, "[a:3][["]]),
        ("[a:3][[[", [[3, "[[["], [40, "a[[["]]),
        ("[a:3] [[", [[3, " [["], [40, "a [["]]),
        ("([a:3])]", [[40, "([a:3])]"]]),
        ("([a:3])]]", [[3, "()]]"], [40, "(a)]]"]]),
        ("[a:3][[b:5][[", [[40, "[a:3][[b:5][["]]),
        ("[q:[a:3]:5][[", [[3, "[q::5][["], [40, "[q:a:5][["]]),
        ("[a:3]((b))[", [[40, "[a:3]((b))["]]),
        ("[a:3][(b)[", [[3, "[(b)["], [40, "a[(b)["]]),
        ("[a:3][( b)[", [[40, "[a:3][( b)["]]),
    ],
)
def test_more_edits(prompt: str, wanted: list[list[Any]]) -> None:
    assert read(prompt, 40) == wanted


@given(SYNTAX | st.text(), st.integers(1, 50), st.none() | st.integers(1, 50), st.booleans())
def test_any_text_is_read(prompt: str, steps: int, first_pass: int | None, old: bool) -> None:
    found = stages(prompt, steps, first_pass=first_pass, old_timeline=old)
    ends = [stage.end for stage in found]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    assert ends[0] >= 1
    for stage in found:
        letters = iter(prompt)
        assert all(letter in letters for letter in stage.text)


@given(st.text(st.characters(exclude_characters="[]|\\")), st.integers(1, 50))
def test_text_without_square_brackets_is_one_stage(prompt: str, steps: int) -> None:
    assert read(prompt, steps) == [[steps, prompt]]


@pytest.mark.parametrize(
    "prompt",
    [
        "[" * 2000,
        "[" * 1000 + "]" * 1000,
        "[a:" * 600 + "b" + ":3]" * 600,
        "[a|" * 600 + "b" + "]" * 600,
        "([" * 1000,
        "[a:b:0.5" * 300,
        "[" + "|".join("a" * 1000) + "]",
    ],
)
def test_nests_and_lists_take_no_time(prompt: str) -> None:
    before = time.process_time()
    stages(prompt, 30)
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize(
    ("prompt", "first_pass", "says"),
    [
        ("a [b:c:21]", None, r"'\[b:c:21\]' changes at 21, but there are 20 evaluations"),
        ("a [b:c:1.5]", None, "changes at 1.5"),
        ("a [[b:d:-1]:c:5]", None, r"'\[b:d:-1\]' changes at -1"),
        ("a [b:c:2.5]", 30, "there are 50 evaluations"),
    ],
)
def test_an_edit_that_cannot_act_is_refused_by_name(prompt: str, first_pass: int | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_edits(prompt, 20, first_pass=first_pass)


@pytest.mark.parametrize("prompt", ["a [b:c:20]", "[b:c:0]", "[b:c:1.0]", "[a:b:", "[a|b]", "[b:c:x]", ""])
def test_an_edit_that_acts_is_not(prompt: str) -> None:
    check_edits(prompt, 20)
    check_edits(prompt, 20, first_pass=20)
    check_edits("[b:c:1.5] [d:e:30]", 20, first_pass=20)
