"""No syntax: every character is text, as in diffusers."""

from __future__ import annotations

from sdscratch.text.prompt import Span

__all__ = ["spans"]


def spans(text: str) -> tuple[Span, ...]:
    """The text as it stands."""
    return (Span(text),)
