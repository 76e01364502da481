"""Tokenizers for tests: CLIP's where its table is at hand, and a tiny one of the tests' own."""

from __future__ import annotations

from functools import cache

from sdscratch.text.tokenizer import Tokenizer, learn_merges
from support.prompts import random_prompts
from support.shared import shared_path

CAPTIONS = [
    "a dog wearing sunglasses",
    "a red apple",
    "an octopus on a purple background",
    "a photo, highly detailed",
]


@cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's own; the test is skipped where its merge table is absent."""
    return Tokenizer.from_path(shared_path("clip", "bpe_simple_vocab_16e6.txt.gz"))


@cache
def tiny_tokenizer() -> Tokenizer:
    """300 merges learnt from a few captions and from random prompts."""
    return Tokenizer.from_merges(learn_merges(CAPTIONS * 50 + list(random_prompts(0, 300)), 300))
