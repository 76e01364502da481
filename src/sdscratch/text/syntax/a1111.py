"""A1111's syntax, the one of most prompts in the world (and Forge's): weights, BREAK, AND.

What `[a:b:0.5]` and `[a|b]` mean is in `editing.py`. Behaviour as of web UI 1.10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdscratch.text.prompt import BREAK, Part, Span
from sdscratch.text.syntax.brackets import Grammar, attention_tokens, weigh

__all__ = ["literal_spans", "parts", "spans"]

BREAKS = re.compile(r"\s*\bBREAK\b\s*")
AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def _split(text: str) -> Iterator[Span]:
    for index, piece in enumerate(BREAKS.split(text)):
        if index:
            yield Span.chunk_break()
        yield Span(piece)


def _is_break(span: Span) -> bool:
    """A break inside weighted brackets has another weight than -1, and is a word again: so does the tool."""
    return span.text == BREAK and span.weight == -1.0


GRAMMAR = Grammar(
    tokens=attention_tokens(r":\s*([+-]?[.\d]+)\s*\)"),
    unescape=lambda token: token[1:],  # a backslash before anything else just vanishes
    split=_split,
    breaks=_is_break,
)


def spans(text: str) -> tuple[Span, ...]:
    """The text with its weights."""
    return weigh(text, GRAMMAR)


def literal_spans(text: str) -> tuple[Span, ...]:
    """The text as it stands: emphasis `none`, where no bracket and no BREAK means anything."""
    return (Span(text),)


def parts(text: str) -> tuple[Part, ...]:
    """The texts joined by AND, wherever the word stands, and their weights.

    A number after the last colon is a weight even where there is no AND: `a cat:1.2` is "a cat" 1.2 times.
    """
    return tuple(_part(piece) for piece in AND.split(text))


def _part(text: str) -> Part:
    text = text.rstrip()
    head, colon, tail = text.rpartition(":")
    if colon and WEIGHT.fullmatch(tail.lstrip()):
        return Part(head.rstrip(), float(tail))
    return Part(text)
