r"""ComfyUI's syntax: `(x)` weighs 1.1 times, `(x:w)` sets the weight to w, whatever is around it.

The weight is what follows the last colon, if it is a number as Python writes one. `\(` and `\)` are
brackets in the text; square brackets, BREAK and AND mean nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from sdscratch.text.prompt import Span

__all__ = ["spans"]

FACTOR = 1.1
PARENTHESES = re.compile(r"\\[()]|[()]")
ESCAPED = re.compile(r"\\([()])")


def spans(text: str) -> tuple[Span, ...]:
    """The text with its weights; nothing for an empty text."""
    brackets = {match.start(): match[0] for match in PARENTHESES.finditer(text) if len(match[0]) == 1}
    places, closing = list(brackets), _closing(brackets)
    found: list[Span] = []
    waiting = [(0, len(text), 1.0, True)]  # a stack, for brackets may be nested a thousand deep
    while waiting:
        start, end, weight, divisible = waiting.pop()
        if not divisible:
            found.append(Span(ESCAPED.sub(r"\1", text[start:end]), weight))
            continue
        for piece in reversed(list(_pieces(start, end, places, brackets, closing))):
            if brackets.get(piece[0]) == "(" and brackets.get(piece[1] - 1) == ")":
                waiting.append((*_inside(text, *piece, weight), True))
            else:
                waiting.append((*piece, weight, False))
    return tuple(found)


def _closing(brackets: dict[int, str]) -> dict[int, int]:
    """Where each opening bracket is closed, if it is."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for place, bracket in brackets.items():
        if bracket == "(":
            opened.append(place)
        elif opened:
            closing[opened.pop()] = place
    return closing


def _pieces(
    start: int, end: int, places: Sequence[int], brackets: dict[int, str], closing: dict[int, int]
) -> Iterator[tuple[int, int]]:
    """The outermost brackets of a stretch, and what stands between them.

    An opening bracket that makes up for an earlier, stray closing one begins nothing: so does the tool count.
    """
    at = bisect_left(places, start)
    depth, begun = 0, start
    while at < len(places) and places[at] < end:
        place = places[at]
        if brackets[place] == "(" and depth == 0:
            if begun < place:
                yield begun, place
            begun = place
            after = closing.get(place, end) + 1
            if after > end:
                break
            yield place, after
            begun = after
            at = bisect_left(places, after)
            continue
        depth += 1 if brackets[place] == "(" else -1
        at += 1
    if begun < end:
        yield begun, end


def _inside(text: str, start: int, end: int, weight: float) -> tuple[int, int, float]:
    """What a pair of brackets holds, and its weight: its own number, else 1.1 times the one around it."""
    start, end = start + 1, end - 1
    colon = text.rfind(":", start, end)
    if colon > start:
        try:
            return start, colon, float(text[colon + 1 : end])
        except ValueError:
            pass
    return start, end, weight * FACTOR
