"""Random prompts: everything that people type, and much that they do not."""

from __future__ import annotations

import random
from collections.abc import Iterator

TYPED = """
a the of an photo photograph astronaut riding horse highly detailed by greg rutkowski artstation 8k hdr
masterpiece octane render Trending CAT Dog naïve café Zürich straße ﬁne ﬂower İstanbul ǅ ΑΣ ΣΑΣ œuvre
"""
WORDS = TYPED.split()
CONTRACTIONS = [
    "it's",
    "DON'T",
    "we're",
    "I've",
    "I'm",
    "they'll",
    "he'd",
    "'s",
    "''ll",
    "o'clock",
    "’s",
    "'S",
]
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|endoftext|", "<|", "|>"]
SPACES = list(" \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u3000\u200b")
PUNCTUATION = [*"!?.,;:-_()[]{}<>|/\\\"'`~@#$%^&*+=", "...", "!!!", "--", "((", "))", "</w>", ":1.2)"]
EMOJI = [
    "🐶",
    "🕶\ufe0f",
    "👩\u200d🚀",
    "🏳\ufe0f\u200d🌈",
    "👍🏽",
    "🇫🇷",
    "❤",
    "①",
    "½",
    "٣",
    "५",
    "Ⅷ",
    "²",
    "𝟘",
]
MARKS = list("\u0301\u0308\u0327\u20dd\u093f\u0e49\u3099\ufe0f\u200d\u0345\u0f71")

# First and last code point of blocks, with the unassigned ones between; none is a surrogate.
BLOCKS = [
    (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0x9F), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F),
    (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0xF00, 0xFFF), (0x1100, 0x11FF),
    (0x13A0, 0x13FF), (0x1C90, 0x1CBF), (0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x2C00, 0x2DDF),
    (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xA640, 0xA69F), (0xAB70, 0xABBF), (0xAC00, 0xD7A3),
    (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFF00, 0xFFFF), (0x10000, 0x1056F),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F300, 0x1FAFF), (0x20000, 0x2FA1F), (0xE0000, 0xE01EF),
    (0x10FF00, 0x10FFFF),
]  # fmt: skip


def random_prompts(seed: int, count: int) -> Iterator[str]:
    """`count` prompts without lone surrogates: most of a few words, some empty, one in 100 very long."""
    rng = random.Random(seed)
    for _ in range(count):
        parts = rng.randint(200, 3000) if rng.random() < 0.01 else rng.choice([0, 1, 2, 4, 8, 16, 32, 100])
        yield "".join(_part(rng) for _ in range(parts))


def _part(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(WORDS) + rng.choice([" ", " ", ", ", "", *SPACES])
    if kind < 0.60:
        return rng.choice(rng.choice([CONTRACTIONS, SPECIAL, SPACES, PUNCTUATION, EMOJI]))
    if kind < 0.70:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    first, last = rng.choice(BLOCKS)
    text = "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 4)))
    return text + rng.choice(MARKS) * rng.choice([0, 0, 1, 2])
