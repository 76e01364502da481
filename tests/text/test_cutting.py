"""Prompts as one padded row, and a warning that names what was cut."""

from __future__ import annotations

import logging

import pytest

from sdscratch.errors import UsageError
from sdscratch.text.cutting import cut_notice, cut_prompt, encode_prompt
from sdscratch.text.tokenizer import Tokenizer
from support.prompts import random_prompts
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
    tokens = cut_prompt(tiny_tokenizer(), "a dog " * 100 + "\n\x1b[2J" + "cat " * 1000)
    notice = cut_notice(tokens)
    assert notice.isprintable()
    assert len(notice) < 5000


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="not valid text"):
        encode_prompt(tiny_tokenizer(), "a\udcff")


def test_75_tokens_fit_and_a_76th_is_cut() -> None:
    tokenizer = clip_tokenizer()
    fits = cut_prompt(tokenizer, "dog " * 75)
    assert (len(fits.ids), fits.truncated, fits.cut) == (77, 0, "")
    long = cut_prompt(tokenizer, "dog " * 75 + "cat")
    assert (long.ids, long.truncated, long.cut) == (fits.ids, 1, "cat")


@pytest.mark.parametrize(
    "cut",
    [
        ", highly detailed",
        "Highly  Détailed,\n8K ",
        "İst 🕶\ufe0f",
        "e\u0301te\u0301",
        "日本",
        "<|endoftext|>!",
    ],
)
def test_what_is_cut_is_the_tail_of_the_users_own_words(cut: str) -> None:
    tokenizer = clip_tokenizer()
    typed = "E\u0301TÉ ①\u3000"  # one character more than its normal form
    typed += "dog " * (77 - len(tokenizer.encode(typed).ids))
    tokens = cut_prompt(tokenizer, typed + cut)
    assert tokens.cut == cut
    assert tokens.truncated == len(tokenizer.encode(cut).ids) - 2


@pytest.mark.parametrize("length", range(2, 30))
def test_kept_and_cut_words_make_up_the_prompt(length: int) -> None:
    tokenizer = Tokenizer.from_merges(tiny_tokenizer().vocabulary.merges, length)
    prompt = "A dog, wearing\tsunglasses; " * 10
    tokens = cut_prompt(tokenizer, prompt)
    assert len(tokens.ids) == len(tokens.pieces) == length
    assert tokenizer.encode(prompt.removesuffix(tokens.cut)).ids == tokens.ids
    whole = Tokenizer.from_merges(tokenizer.vocabulary.merges, length=1000)
    assert whole.encode(prompt).ids[1:-1] == tokens.ids[1:-1] + whole.encode(tokens.cut).ids[1:-1]
    assert len(whole.encode(tokens.cut).ids) - 2 == tokens.truncated


def test_what_is_cut_is_a_tail_of_any_prompt() -> None:
    for prompt in random_prompts(3, 500):
        tokens = cut_prompt(tiny_tokenizer(), prompt)
        assert prompt.endswith(tokens.cut)
        assert bool(tokens.cut) == bool(tokens.truncated)


def test_a_million_letters_without_a_space_are_cut_too() -> None:
    tokens = cut_prompt(tiny_tokenizer(), "a" * 1_000_000)
    assert len(tokens.ids) == 77
    assert len(tokens.cut) > 900_000
