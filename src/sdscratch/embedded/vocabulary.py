"""What the embedded model knows: things, each by its pictogram and the words for it, and the ten grounds.

The things lie in `concepts.txt`, which is meant to be read and edited: the best known first, in the order of
their fame, then the others by the alphabet. A line is

    <emoji> <word> / <another word for the same>

where a `*` stands before words that take no "a" and are not counted (fire, grapes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["BACKGROUNDS", "BEST_KNOWN", "Concept", "Word", "concept", "concepts", "parse"]

# Red, green, blue in 0 to 1. A caption that names no background means white.
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.05, 0.05, 0.05),
    "red": (0.9, 0.2, 0.2),
    "green": (0.3, 0.75, 0.35),
    "blue": (0.25, 0.45, 0.9),
    "yellow": (1.0, 0.9, 0.35),
    "pink": (1.0, 0.7, 0.8),
    "purple": (0.6, 0.35, 0.8),
    "orange": (1.0, 0.6, 0.2),
    "gray": (0.6, 0.6, 0.6),
}

BEST_KNOWN = 300  # so many lines at the top of the list stand in the order of fame


@dataclass(frozen=True)
class Word:
    """What a thing may be called."""

    text: str  # "slice of pizza"
    article: bool  # whether one says "a" before it, and counts it


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn."""

    emoji: str
    words: tuple[Word, ...]

    @property
    def name(self) -> str:
        """Its first word, which no other concept has: by it, everything else refers to the concept."""
        return self.words[0].text

    @property
    def countable(self) -> bool:
        """Whether one of its words has a plural."""
        return any(word.article for word in self.words)


def parse(line: str) -> Concept:
    """One line of the list."""
    emoji, _, words = line.partition(" ")
    return Concept(
        emoji, tuple(Word(text.removeprefix("*"), text[0] != "*") for text in words.strip().split(" / "))
    )


@cache
def concepts() -> tuple[Concept, ...]:
    """All of them, the best known first."""
    text = files("sdscratch.embedded").joinpath("concepts.txt").read_text(encoding="utf-8")
    return tuple(parse(line) for line in text.splitlines())


def concept(name: str) -> Concept:
    """The concept of this name.

    Raises:
        KeyError: there is none.
    """
    return _by_name()[name]


@cache
def _by_name() -> dict[str, Concept]:
    return {each.name: each for each in concepts()}
