"""The web UIs' infotext: prompt, negative prompt, and a line of `key: value` pairs, read as A1111 reads it.

`parse_infotext` takes a text apart; `settings` goes on to what A1111 1.10 and Forge make of it: defaults for
what a text does not say, sizes in two numbers, and the switches that an old version stands for. The format
is not injective: a prompt whose last line holds three `word: value` pairs is eaten as parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["HASHES", "NEGATIVE", "Infotext", "pairs", "parse_infotext", "quote", "unquote"]

NEGATIVE = "Negative prompt:"
HASHES = "Hashes"  # CivitAI's key, whose JSON stands without quotation marks, full of commas
RESOURCES = re.compile(rf", {HASHES}:\s*({{[^{{}}]*}})")
LEAST_PAIRS = 3  # fewer on the last line, and it belongs to the prompt

# A1111's pattern is \s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$), quadratic in time on hostile text.
# A key ends where its run of characters ends, so runs are looked at one by one, to the same effect.
RUN = re.compile(r"[\w \-/]+")
FIRST = re.compile(r"\w")
VALUE = re.compile(r'\s*("(?:\\.|[^\\"])+"(?=,|$)|[^,]*)(?:,|$)')
QUOTED_CHARACTERS = (",", ":", "\n")


@dataclass(frozen=True)
class Infotext:
    """What a picture says of how it was made, in the web UIs' words whatever tool says it."""

    prompt: str
    negative_prompt: str
    parameters: Mapping[str, str]  # keys and values as they stand, in their order; of one key the last counts


def parse_infotext(text: str) -> Infotext:
    """Take an infotext apart as the web UIs do.

    The last line counts as parameters only with at least three pairs in it. CivitAI's `Hashes` are taken out
    of it first, as CivitAI does. Blanks around a line do not count, nor do line ends at the text's ends. The
    negative prompt starts at the first line that says so; a second one loses its label and joins.
    """
    *lines, last = text.strip().split("\n")
    resources = next(reversed(list(RESOURCES.finditer(last))), None)
    found = list(pairs(last if resources is None else last[: resources.start()] + last[resources.end() :]))
    if len(found) < LEAST_PAIRS:
        lines, found = [*lines, last], []
    prompts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            negative = True
            line = line.removeprefix(NEGATIVE).strip()
        if line or prompts[negative]:  # empty lines before the first word are nothing
            prompts[negative].append(line)
    known = {key: unquote(value) for key, value in found if value}
    if resources is not None and found:
        known[HASHES] = resources[1]
    return Infotext("\n".join(prompts[0]), "\n".join(prompts[1]), known)


def pairs(line: str) -> Iterator[tuple[str, str]]:
    """The keys and raw values on a line, in order."""
    place = 0
    while run := RUN.search(line, place):
        place = run.end()
        first = FIRST.search(run[0])
        if first is None or line[place : place + 1] != ":" or len(run[0]) - first.start() < 2:
            continue
        value = VALUE.match(line, place + 1)
        assert value is not None  # the second alternative takes anything
        yield run[0][first.start() :], value[1]
        place = value.end()


def quote(value: Any) -> Any:
    """A value as A1111 writes it: JSON where a comma, colon or line feed would break it, else itself."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in QUOTED_CHARACTERS) else value


def unquote(value: str) -> str:
    """The inverse of `quote`; what is no JSON stays as it is."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except (ValueError, RecursionError):
            pass
    return value
