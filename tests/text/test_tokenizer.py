"""Ids: transformers' CLIPTokenizer is the reference, prompt by prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdscratch.errors import UsageError
from sdscratch.text.tokenizer import Tokenizer, learn_merges
from support.prompts import random_prompts
from support.tokenizers import (
    CAPTIONS,
    TOKENIZERS,
    assert_same_ids,
    clip_tokenizer,
    tiny_tokenizer,
    write_folder,
)

ASTRONAUT = "a photograph of an astronaut riding a horse"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_the_references_on_1500_random_prompts(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    assert_same_ids(tokenizer, write_folder(tmp_path, tokenizer), list(random_prompts(1, 1500)))


@pytest.mark.full
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_the_references_on_100_000_random_prompts(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    assert_same_ids(tokenizer, write_folder(tmp_path, tokenizer), list(random_prompts(2, 100_000)))


def test_ids_are_the_references_on_every_character(tmp_path: Path) -> None:
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    groups = [" x".join(characters[i : i + 10]) for i in range(0, 0x3000, 10)]  # beyond, blocks look alike
    assert_same_ids(tiny_tokenizer(), write_folder(tmp_path, tiny_tokenizer()), groups)


def test_clip_has_the_published_ids() -> None:
    tokenizer = clip_tokenizer()
    assert (tokenizer.size, tokenizer.start, tokenizer.end, tokenizer.pad) == (49408, 49406, 49407, 49407)
    assert tokenizer.length == 77
    tokens = tokenizer.encode(ASTRONAUT)
    assert tokens.ids == (49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407)
    assert tokens.pieces[2] == "photograph</w>"
    assert (tokens.cut, tokens.truncated) == ("", 0)


def test_an_empty_prompt_is_start_and_end() -> None:
    tokenizer = tiny_tokenizer()
    for prompt in ("", " ", "\n\t"):
        assert tokenizer.encode(prompt).ids == (tokenizer.start, tokenizer.end)


def test_rows_are_padded_to_the_length_asked_for() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode("a dog")
    row = tokens.padded(tokenizer.length, tokenizer.pad)
    assert len(row) == 77
    assert tuple(row[: len(tokens.ids)]) == tokens.ids
    assert set(row[len(tokens.ids) :]) == {tokenizer.pad}


def test_nothing_is_cut_here() -> None:
    tokens = clip_tokenizer().encode("dog " * 1000)
    assert len(tokens.ids) == len(tokens.pieces) == 1002
    assert len(tokens.offsets) == 1000
    assert (tokens.cut, tokens.truncated) == ("", 0)
    with pytest.raises(ValueError, match="cut the text first"):
        tokens.padded(77, 0)


def test_a_piece_of_text_has_ids_without_start_and_end() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer.ids(ASTRONAUT) == list(tokenizer.encode(ASTRONAUT).ids[1:-1])
    assert tokenizer.ids(" ") == []


def test_an_offset_is_where_a_token_begins_in_the_users_own_words() -> None:
    text = "E\u0301TÉ ①\u3000Dog"  # one character more than its normal form
    assert text[clip_tokenizer().encode(text).offsets[-1] :] == "Dog"


def test_a_special_token_typed_in_the_prompt_is_one_token() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("a<|endoftext|>dog <|startoftext|>").ids
    assert ids.count(tokenizer.end) == 2
    assert ids.count(tokenizer.start) == 2


def test_bytes_that_are_no_text_are_refused_in_one_sentence() -> None:
    prompt = os.fsdecode(b"a d\xffg")  # what the shell's bytes become in sys.argv
    with pytest.raises(UsageError, match="character 4 of the prompt") as caught:
        tiny_tokenizer().encode(prompt)
    str(caught.value).encode()


def test_learnt_merges_are_as_many_as_asked_and_join_common_words() -> None:
    tokenizer = Tokenizer.from_merges(learn_merges(CAPTIONS * 10, 200))
    assert len(tokenizer.vocabulary.merges) <= 200
    words = ("a</w>", "dog</w>", "wearing</w>", "sunglasses</w>")
    assert tokenizer.encode("A dog wearing  sunglasses").pieces[1:-1] == words
    assert len(learn_merges(CAPTIONS, 5)) == 5


def test_learning_gives_the_same_merges_in_every_process() -> None:
    code = (
        "from support.tokenizers import tiny_tokenizer\n"
        "import hashlib; print(hashlib.sha256(tiny_tokenizer().to_json().encode()).hexdigest())"
    )
    path = os.pathsep.join(["tests", *sys.path])
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in "012"
    }
    assert len(runs) == 1
