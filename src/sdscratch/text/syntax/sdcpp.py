"""The syntax of stable-diffusion.cpp: A1111's weights, read a little differently.

Only `\\(` loses its backslash, no white space stands around a weight, and two BREAKs with nothing between
them are a word.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdscratch.text.prompt import BREAK, Span
from sdscratch.text.syntax.brackets import Grammar, attention_tokens, weigh

__all__ = ["spans"]


def _split(text: str) -> Iterator[Span]:
    yield Span.chunk_break() if text == BREAK else Span(text)


GRAMMAR = Grammar(
    tokens=attention_tokens(r":([+-]?[.\d]+)\)", r"\bBREAK\b", text=r"(?:(?!\bBREAK\b)[^\\()\[\]:])+"),
    unescape=lambda token: "(" if token == r"\(" else token,
    split=_split,
    breaks=lambda span: span.text == BREAK and span.weight == -1.0,
)


def spans(text: str) -> tuple[Span, ...]:
    """The text with its weights."""
    return weigh(text, GRAMMAR)
