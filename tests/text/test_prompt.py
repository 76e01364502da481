"""What a prompt is: its tags, and which stage an evaluation reads."""

from __future__ import annotations

import json

from sdscratch.text.prompt import Stage, Tag, selected, take_tags
from sdscratch.text.syntax.editing import stages
from support.shared import shared_path


def test_stages_are_selected_as_a1111_does() -> None:
    rows = json.loads(shared_path("golden", "prompts_a1111.json").read_text(encoding="utf-8"))["rows"]
    compared = [row for row in rows if "selected_20" in row]
    for row in compared:
        read = stages(row["prompt"], 20)
        chosen = [selected(read, evaluation) for evaluation in range(len(row["selected_20"]))]
        assert chosen == row["selected_20"], row["prompt"]
    assert len(compared) > 50


def test_a_stage_lasts_one_evaluation_longer_than_it_says_and_past_the_last_comes_the_first() -> None:
    read = (Stage(3, "a"), Stage(5, "b"))
    assert [selected(read, evaluation) for evaluation in range(8)] == [0, 0, 0, 0, 1, 1, 0, 0]


def test_tags_are_taken_in_any_case_and_unknown_ones_are_told_apart() -> None:
    text, tags = take_tags("a <LoRA:style:0.8>cat <lyco:x><hypernet:y:1> <3 <a b:c> 1<2:>")
    assert text == "a cat  <3 <a b:c> 1"
    assert tags == (
        Tag("lora", "style:0.8", "<LoRA:style:0.8>"),
        Tag("lyco", "x", "<lyco:x>"),
        Tag("hypernet", "y:1", "<hypernet:y:1>"),
        Tag("2", "", "<2:>"),
    )
    assert [tag.is_lora for tag in tags] == [True, True, False, False]
