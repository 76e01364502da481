"""The syntax of kohya's sd-scripts: A1111's weights; a BREAK stays one in brackets and within words."""

from __future__ import annotations

from sdscratch.text.prompt import BREAK, Span
from sdscratch.text.syntax.brackets import Grammar, attention_tokens, weigh

__all__ = ["spans"]

GRAMMAR = Grammar(
    tokens=attention_tokens(r":([+-]?[.\d]+)\)"),
    unescape=lambda token: token[1:],
    split=lambda text: iter([Span(text)]),
    breaks=lambda span: span.text.strip() == BREAK,
    keeps_breaks_apart=True,
)


def spans(text: str) -> tuple[Span, ...]:
    """The text with its weights.

    The tool puts a backslash on both sides of every BREAK, so that it is a piece of its own; a bracket right
    after it is thereby escaped.
    """
    return weigh(text.replace(BREAK, rf"\{BREAK}" + "\\"), GRAMMAR)
