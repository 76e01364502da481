"""Tokenizers for tests: CLIP's where its table is at hand, a tiny one of our own, and the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sdscratch.text.cutting import cut_prompt
from sdscratch.text.tokenizer import Tokenizer, learn_merges
from support.prompts import random_prompts
from support.shared import shared_path

CAPTIONS = ["a dog wearing sunglasses", "a red apple", "an octopus on a purple background", "highly detailed"]


@cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's own; the test is skipped where its merge table is absent."""
    return Tokenizer.from_path(shared_path("clip", "bpe_simple_vocab_16e6.txt.gz"))


@cache
def tiny_tokenizer() -> Tokenizer:
    """300 merges learnt from a few captions and from random prompts."""
    return Tokenizer.from_merges(learn_merges(CAPTIONS * 50 + list(random_prompts(0, 300)), 300))


TOKENIZERS = {"tiny": tiny_tokenizer, "clip": clip_tokenizer}


def write_folder(folder: Path, tokenizer: Tokenizer) -> Path:
    """The tokenizer as a diffusers folder has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tokenizer.to_files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def reference(folder: Path) -> Any:
    """transformers' CLIPTokenizer of a folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def reference_ids(tokenizer: Any, prompts: Sequence[str]) -> Iterator[list[int]]:
    """The reference's ids of prompts, cut at 77."""
    for start in range(0, len(prompts), 1000):
        batch = list(prompts[start : start + 1000])
        yield from tokenizer(batch, truncation=True, max_length=77)["input_ids"]


def assert_same_ids(tokenizer: Tokenizer, folder: Path, prompts: Sequence[str]) -> None:
    """Ids and pieces, cut at 77, are the reference's, prompt by prompt."""
    clip = reference(folder)
    for prompt, ids in zip(prompts, reference_ids(clip, prompts), strict=True):
        tokens = cut_prompt(tokenizer, prompt)
        assert list(tokens.ids) == ids, ascii(prompt)
        assert list(tokens.pieces) == clip.convert_ids_to_tokens(ids), ascii(prompt)
