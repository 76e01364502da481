"""The web UI's brackets, which A1111, kohya and stable-diffusion.cpp read with small differences.

`(x)` weighs x 1.1 times, `[x]` a 1.1th, `(x:w)` w times, and weights multiply through nesting. A backslash
makes a bracket plain text. A bracket that is not closed counts to the end; one that was not opened is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from sdscratch.text.prompt import BREAK, Span

__all__ = ["FACTOR", "Grammar", "attention_tokens", "weigh"]

FACTOR = 1.1  # of a pair of round brackets; square ones divide by it
OPENING = {")": "(", "]": "["}


def attention_tokens(number: str, *more: str, text: str = r"[^\\()\[\]:]+") -> re.Pattern[str]:
    """What a prompt is cut into: escapes, brackets, `number` (whose first group is the weight), text."""
    escapes = r"\\[()\[\]\\]|\\"
    return re.compile("|".join([escapes, r"[(\[]", number, r"[)\]]", *more, text, ":"]), re.DOTALL)


@dataclass(frozen=True)
class Grammar:
    """What the three tools do differently."""

    tokens: re.Pattern[str]
    unescape: Callable[[str], str]  # of a token that begins with a backslash
    split: Callable[[str], Iterator[Span]]  # text to spans and breaks
    breaks: Callable[[Span], bool]  # whether a weighted span is one
    keeps_breaks_apart: bool = False  # else runs of equal weight are joined, whatever they say


@dataclass
class _Weighing:
    """Spans so far, and where brackets were opened. A bracket takes a place, empty unless it becomes text."""

    texts: list[str | None] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    opened: dict[str, list[int]] = field(default_factory=lambda: {"(": [], "[": []})

    def add(self, text: str | None, weight: float = 1.0) -> None:
        self.texts.append(text)
        self.weights.append(weight)

    def open(self, bracket: str) -> None:
        self.opened[bracket].append(len(self.texts))
        self.add(None)

    def multiply(self, start: int, factor: float) -> None:
        self.weights[start:] = [weight * factor for weight in self.weights[start:]]

    def close(self, bracket: str, factor: float) -> None:
        self.multiply(self.opened[bracket].pop(), factor)

    def make_text(self, bracket: str) -> None:
        self.texts[self.opened[bracket].pop()] = bracket

    def finish(self) -> None:
        for bracket, factor in (("(", FACTOR), ("[", 1 / FACTOR)):
            for start in self.opened[bracket]:
                self.multiply(start, factor)

    def spans(self) -> list[Span]:
        pairs = zip(self.texts, self.weights, strict=True)
        return [Span(text, weight) for text, weight in pairs if text is not None]


def weigh(text: str, grammar: Grammar) -> tuple[Span, ...]:
    """The spans of a prompt; at least one. Takes any text.

    A weight that is no number (`(x:1.2.3)`, an error in A1111) makes its brackets text.
    """
    state = _Weighing()
    for match in grammar.tokens.finditer(text):
        token, number = match[0], match[1]
        if token[0] == "\\":
            state.add(grammar.unescape(token))
        elif token in ("(", "["):
            state.open(token)
        elif number is not None and state.opened["("]:
            weight = _number(number)
            if weight is None:
                state.make_text("(")
                state.add(token)
            else:
                state.close("(", weight)
        elif token in OPENING and state.opened[OPENING[token]]:
            state.close(OPENING[token], FACTOR if token == ")" else 1 / FACTOR)
        else:
            for span in grammar.split(token):
                state.add(span.text, span.weight)
    state.finish()
    return tuple(_joined(state.spans(), grammar)) or (Span(""),)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _joined(spans: list[Span], grammar: Grammar) -> Iterator[Span]:
    """Runs of equal weight become one span, before anything is tokenized: `(un)(able)` is one word."""

    def key(span: Span) -> tuple[float, int | None]:
        apart = grammar.keeps_breaks_apart and span.text.strip() == BREAK
        return span.weight, id(span) if apart else None

    for (weight, _), run in groupby(spans, key):
        span = Span("".join(span.text for span in run), weight)
        yield Span(span.text, weight, breaks=True) if grammar.breaks(span) else span
