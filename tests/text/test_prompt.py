"""Prompts as the pipeline takes them: padded rows, and a warning that names what was cut."""

from __future__ import annotations

import logging

import pytest

from sdscratch.errors import UsageError
from sdscratch.text.prompt import cut_notice, encode_prompt
from sdscratch.text.tokenizer import Tokenizer
from support.tokenizers import clip_tokenizer, tiny_tokenizer


def test_a_prompt_becomes_a_padded_row_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    row = encode_prompt(clip_tokenizer(), "a photograph of an astronaut riding a horse")
    assert row[:10] == [49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407]
    assert row[10:] == [49407] * 67
    assert not caplog.records


def test_an_empty_prompt_is_a_row_too() -> None:
    tokenizer = tiny_tokenizer()
    assert encode_prompt(tokenizer, "") == [tokenizer.start, tokenizer.end, *[tokenizer.pad] * 75]


def test_a_shorter_model_gets_shorter_rows() -> None:
    tokenizer = Tokenizer.from_merges(tiny_tokenizer().vocabulary.merges, length=24)
    assert len(encode_prompt(tokenizer, "a dog")) == 24


def test_the_padding_is_the_models() -> None:
    vocabulary = tiny_tokenizer().vocabulary
    tokenizer = Tokenizer(type(vocabulary)(vocabulary.merges, vocabulary.ids, pad="!"))
    assert encode_prompt(tokenizer, "a dog")[-1] == vocabulary.ids["!"] == 0


def test_a_long_prompt_is_cut_with_a_warning_that_names_what(caplog: pytest.LogCaptureFixture) -> None:
    prompt = "dog " * 74 + "cat, highly detailed"
    with caplog.at_level(logging.WARNING, "sdscratch"):
        row = encode_prompt(clip_tokenizer(), prompt)
    assert len(row) == 77
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the prompt is longer than 75 tokens; its last 3 are not used: ', highly detailed'"
    )


def test_the_warning_is_one_line_whatever_was_cut() -> None:
    tokens = tiny_tokenizer().encode("a dog " * 100 + "\n\x1b[2J" + "cat " * 1000)
    notice = cut_notice(tokens)
    assert notice.isprintable()
    assert len(notice) < 5000


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="not valid text"):
        encode_prompt(tiny_tokenizer(), "a\udcff")
