"""Prompts by the name of a syntax: parts, stages and chunks together."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdscratch.errors import UsageError
from sdscratch.text.prompt import Part, Span, Tag
from sdscratch.text.reading import SYNTAXES, plan_prompt, read_prompt
from support.tokenizers import clip_tokenizer, tiny_tokenizer


def test_a_plan_has_the_stages_of_each_part() -> None:
    first, second = plan_prompt("(a:1.2) [cat:dog:0.5] AND [b|c]:0.5", clip_tokenizer(), steps=4)
    assert (first.text, first.weight) == ("(a:1.2) [cat:dog:0.5]", 1.0)
    assert [(stage.end, stage.text) for stage in first.stages] == [(2, "(a:1.2) cat"), (4, "(a:1.2) dog")]
    [chunk] = first.stages[1].chunks
    assert chunk.ids[:4] == (49406, 320, 1929, 49407)
    assert chunk.weights[:4] == (1.0, 1.2, 1.0, 1.0)
    assert second.weight == 0.5
    assert [stage.text for stage in second.stages] == [" b", " c", " b", " c"]


def test_a_negative_prompt_knows_editing_but_not_and() -> None:
    [part] = plan_prompt("a AND [b:c:2]:0.5", clip_tokenizer(), steps=4, negative=True)
    assert part.weight == 1.0
    assert [stage.text for stage in part.stages] == ["a AND b:0.5", "a AND c:0.5"]


def test_a_second_pass_counts_on() -> None:
    [part] = plan_prompt("[a:b:25]", clip_tokenizer(), steps=10, first_pass=20)
    assert [(stage.end, stage.text) for stage in part.stages] == [(5, "a"), (10, "b")]


def test_literal_prompts_are_edited_but_not_weighed() -> None:
    [part] = plan_prompt("(a:1.2) BREAK [b:c:1]", clip_tokenizer(), steps=2, literal=True)
    assert [stage.text for stage in part.stages] == ["(a:1.2) BREAK b", "(a:1.2) BREAK c"]
    assert all(len(stage.chunks) == 1 for stage in part.stages)
    assert {weight for stage in part.stages for weight in stage.chunks[0].weights} == {1.0}


@pytest.mark.parametrize("syntax", sorted(set(SYNTAXES) - {"a1111"}))
def test_other_syntaxes_know_no_editing_and_no_and(syntax: str) -> None:
    [part] = plan_prompt("a AND [b:c:2]:0.5", clip_tokenizer(), syntax, steps=4)
    assert [(stage.end, stage.text) for stage in part.stages] == [(4, "a AND [b:c:2]:0.5")]


def test_plain_is_cut_with_todays_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sdscratch"):
        [part] = plan_prompt("dog " * 75 + "(cat:2)", clip_tokenizer(), "plain", steps=4)
    [chunk] = part.stages[0].chunks
    assert chunk.ids == (49406, *[1929] * 75, 49407)
    assert "its last 5 are not used: '(cat:2)'" in caplog.text


def test_a_prompt_is_read_without_its_tags() -> None:
    prompt = read_prompt("a (cat:1.2)<LORA:x:1> AND b:2")
    assert (prompt.text, prompt.syntax) == ("a (cat:1.2) AND b:2", "a1111")
    assert prompt.spans == (Span("a "), Span("cat", 1.2), Span(" AND b:2"))
    assert prompt.parts == (Part("a (cat:1.2)"), Part(" b", 2.0))
    assert prompt.tags == (Tag("lora", "x:1", "<LORA:x:1>"),)


def test_compels_conjunction_is_kept() -> None:
    prompt = read_prompt('("a", "b+").and(1, 0.5)', "compel")
    assert prompt.parts == (Part("a"), Part("b", 0.5))
    assert [blend.weight for blend in prompt.blends] == [1.0, 0.5]
    [part] = plan_prompt('("a", "b+").and(1, 0.5)', clip_tokenizer(), "compel", steps=4)
    assert part.weight == 1.0  # its contexts are joined, not its pulls
    assert len(part.stages[0].blends) == len(part.stages[0].chunks) == 2


def test_an_unknown_syntax_is_refused() -> None:
    with pytest.raises(UsageError, match="no prompt syntax 'midjourney'; take one of a1111, comfyui"):
        read_prompt("a cat", "midjourney")


@settings(max_examples=50)
@given(st.text(st.sampled_from('ab,:|()[]\\ .1+"BREAKND<>')), st.sampled_from(sorted(SYNTAXES)))
def test_any_prompt_has_chunks_of_the_text_encoders_length(text: str, syntax: str) -> None:
    tokenizer = tiny_tokenizer()
    for part in plan_prompt(text, tokenizer, syntax, steps=5):
        for stage in part.stages:
            assert stage.chunks
            for chunk in stage.chunks:
                assert len(chunk.ids) == len(chunk.weights) == tokenizer.length
                assert (chunk.ids[0], chunk.ids[chunk.used + 1]) == (tokenizer.start, tokenizer.end)


def test_prompts_are_read_without_torch() -> None:
    check = "import sdscratch.text.reading, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
