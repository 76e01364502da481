r"""compel's syntax (InvokeAI's too): `word+`, `(two words)1.3`, `("a", "b").blend(1, 0.8)`, `.and()`.

A plus weighs 1.1 times, a minus 0.9 times; weights multiply through nesting. `\(`, `\)` and `\"` are text,
and `.swap()` is read as its first text. What the grammar refuses is words.

The grammar is one where a bracket's meaning depends on what follows its end, so that a parser that tries
and goes back needs time without bound. Here groups are read from the last to the first, each once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from sdscratch.text.prompt import Blend, Span, Tag

__all__ = ["Conjunction", "conjunction"]

PLUS, MINUS = 1.1, 0.9
SPACE = r"[ \t\n\r\f\v]"
REAL = r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)"
NUMBER = rf"(?:{REAL}|-?[0-9]+)"

SPACES = re.compile(rf"{SPACE}*")
# What has no meaning: escapes, signs that something follows, and whatever is not ()",.+-=
WORD = re.compile(r"""(?:\\[()",.+\-=]|[-+](?![ \t\n\r()",.+\-=]|\Z)|-?[0-9]+|[^ \t\n\r\f\v()",.+\-=])+""")
FREE_WORD = re.compile(r"[^ \t\n\r\f\v]+")
QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
SIGNS = re.compile(r"\++|-+")
WEIGHT = re.compile(rf"\++|-+|{NUMBER}")
ATTEND = re.compile(rf"{SPACE}*\.attend{SPACE}*\({SPACE}*(\++|-+|{NUMBER}){SPACE}*\)")
SWAP = re.compile(rf"{SPACE}*\.swap{SPACE}*(?=\()")
LORA = re.compile(
    rf"(?:use|with)Lora{SPACE}*\({SPACE}*([\w-]+)(?:{SPACE}*,{SPACE}*({NUMBER}))?{SPACE}*\)", re.ASCII
)
OPTION = rf"(?:[\w-]+{SPACE}*={SPACE}*(?:{NUMBER}|[\w-]+)|{NUMBER}|[\w-]+)"
OPTIONS = rf"\({SPACE}*((?:{OPTION}(?:{SPACE}*,{SPACE}*{OPTION})*)?){SPACE}*\)"
JOIN = re.compile(rf"{SPACE}*\.(blend|and|add){SPACE}*{OPTIONS}", re.ASCII)
SWAP_OPTIONS = re.compile(rf"{SPACE}*,{SPACE}*{OPTION}(?:{SPACE}*,{SPACE}*{OPTION})*", re.ASCII)
ESCAPED = re.compile(r'\\([()"])')


@dataclass(frozen=True)
class _Weighed:
    """Texts, groups in them and LoRAs, with a weight on them all."""

    nodes: tuple[_Node, ...]
    weight: float = 1.0


_Node = str | Tag | _Weighed
_Match = tuple[tuple[_Node, ...], int]  # what was read, and where it ends


@dataclass(frozen=True)
class Conjunction:
    """A prompt as compel reads it: what `.and()` joins, and the LoRAs asked for."""

    blends: tuple[Blend, ...]
    tags: tuple[Tag, ...] = ()


def conjunction(text: str) -> Conjunction:
    """The meaning of any text."""
    reader = _Reader(re.sub(r",(\S)", r", \1", text))  # so that a comma ends a word
    return reader.joined(("and", "add")) or reader.joined(("blend",)) or _alone(reader.prompt())


def _alone(nodes: Sequence[_Node]) -> Conjunction:
    spans, tags = _flat(nodes)
    return Conjunction((Blend((spans,)),), tags)


def _flat(nodes: Sequence[_Node]) -> tuple[tuple[Span, ...], tuple[Tag, ...]]:
    """Texts with their weights; neighbours of equal weight are one, with a space between."""
    found: list[Span] = []
    tags: list[Tag] = []
    waiting: list[tuple[Iterator[_Node], float]] = [(iter(nodes), 1.0)]
    while waiting:
        nodes_left, weight = waiting[-1]
        node = next(nodes_left, None)
        if node is None:
            waiting.pop()
        elif isinstance(node, str):
            found.append(Span(ESCAPED.sub(r"\1", node), weight))
        elif isinstance(node, Tag):
            tags.append(node)
        else:
            waiting.append((iter(node.nodes), weight * node.weight))
    runs = groupby(found, lambda span: span.weight)
    spans = tuple(Span(" ".join(span.text for span in run), weight) for weight, run in runs)
    return spans or (Span(""),), tuple(tags)


def _weight(text: str) -> float:
    if text[0] == "+" and text.strip("+") == "":
        return float(PLUS ** len(text))
    if text.strip("-") == "":
        return float(MINUS ** len(text))
    return float(text)


class _Reader:
    """Reads one text. Every method takes a place and gives what stands there and where it ends, or None."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.quotes: dict[int, _Match | None] = {}
        self.swaps: dict[int, int] = {}  # where the brackets of each `.swap(…)` end, known once `groups` is

    @cached_property
    def groups(self) -> dict[int, _Match]:
        """The groups in round brackets, by where they begin: from the last on, so that each is read once."""
        found: dict[int, _Match] = {}
        self.__dict__["groups"] = found  # what is read below looks here
        swaps = {match.end() for match in SWAP.finditer(self.text)}
        for match in reversed(list(re.finditer(r"\(", self.text))):
            if match.start() in swaps:
                self._read_swap(match.start())
            inside = self._items(match.end(), self._part)
            end = self._skip(inside[1])
            if self.text[end : end + 1] == ")":
                found[match.start()] = inside[0], end + 1
        return found

    def prompt(self) -> tuple[_Node, ...]:
        """The whole text: whatever has no other meaning is words."""
        return self._items(0, lambda place: self._meaning(place) or self._free_word(place))[0]

    def fragment(self) -> tuple[_Node, ...] | None:
        """The whole text, if nothing in it is without meaning."""
        nodes, end = self._items(0, self._part)
        return nodes if self._skip(end) == len(self.text) else None

    def joined(self, operators: Sequence[str]) -> Conjunction | None:
        """`(a, b).blend(1, 2)` or `(a, b).and(1, 2)`, if the text is one of `operators`."""
        place = self._skip(0)
        if self.text[place : place + 1] != "(":
            return None
        targets: list[tuple[_Node, ...]] = []
        while True:
            match = self._target(self._skip(place + 1), self._quoted_prompt)
            if match is None:
                return None
            targets.append(match[0])
            place = self._skip(match[1])
            if self.text[place : place + 1] != ",":
                break
        operator = JOIN.match(self.text, place + 1) if self.text[place : place + 1] == ")" else None
        if operator is None or operator[1] not in operators:
            return None
        if operator[1] == "blend" and self._skip(operator.end()) < len(self.text):
            return None
        return _join(targets, operator[1], re.findall(OPTION, operator[2], re.ASCII))

    def _items(self, place: int, read: Callable[[int], _Match | None]) -> _Match:
        nodes: list[_Node] = []
        while (match := read(self._skip(place))) is not None:
            nodes += match[0]
            place = match[1]
        return tuple(nodes), place

    def _skip(self, place: int) -> int:
        match = SPACES.match(self.text, place)
        return match.end() if match else place

    def _part(self, place: int) -> _Match | None:
        """What a group may hold."""
        return self._meaning(place) or self._word(place) or self._point(place)

    def _meaning(self, place: int) -> _Match | None:
        return self._lora(place) or self._operated(place) or self._quoted(place) or self.groups.get(place)

    def _operated(self, place: int) -> _Match | None:
        """A word or a group with a weight, or to be swapped."""
        bracketed = self._quoted(place) or self.groups.get(place)
        target = bracketed or self._word(place)
        if target is None:
            return None
        nodes, end = target
        if match := ATTEND.match(self.text, end):
            return (_Weighed(nodes, _weight(match[1])),), match.end()
        if match := (WEIGHT if bracketed else SIGNS).match(self.text, end):
            return (_Weighed(nodes, _weight(match[0])),), match.end()
        if (match := SWAP.match(self.text, end)) and match.end() in self.swaps:
            return nodes, self.swaps[match.end()]
        return None

    def _read_swap(self, place: int) -> None:
        """Find where the brackets of a `.swap(…)` end: its text has no comma, and options may follow."""
        end = self._items(place + 1, lambda place: self._meaning(place) or self._word(place))[1]
        if match := SWAP_OPTIONS.match(self.text, end):
            end = match.end()
        end = self._skip(end)
        if self.text[end : end + 1] == ")":
            self.swaps[place] = end + 1

    def _target(self, place: int, other: Callable[[int], _Match | None]) -> _Match | None:
        return self._quoted(place) or self.groups.get(place) or self._word(place) or other(place)

    def _word(self, place: int) -> _Match | None:
        match = WORD.match(self.text, place)
        return ((match[0],), match.end()) if match else None

    def _free_word(self, place: int) -> _Match | None:
        match = FREE_WORD.match(self.text, place)
        return ((match[0],), match.end()) if match else None

    def _point(self, place: int) -> _Match | None:
        return ((self.text[place],), place + 1) if self.text[place : place + 1] in (",", ".") else None

    def _lora(self, place: int) -> _Match | None:
        match = LORA.match(self.text, place)
        if match is None:
            return None
        arguments = match[1] if match[2] is None else f"{match[1]}:{match[2]}"
        return (Tag("lora", arguments, match[0]),), match.end()

    def _quoted(self, place: int) -> _Match | None:
        """Text in double quotes, which is read like a group's."""
        if self.text[place : place + 1] != '"':
            return None
        if place not in self.quotes:
            self.quotes[place] = self._read_quoted(place, _Reader.fragment)
        return self.quotes[place]

    def _quoted_prompt(self, place: int) -> _Match | None:
        return self._read_quoted(place, _Reader.prompt)

    def _read_quoted(self, place: int, read: Callable[[_Reader], tuple[_Node, ...] | None]) -> _Match | None:
        match = QUOTED.match(self.text, place)
        if match is None:
            return None
        nodes = read(_Reader(match[1])) if match[1].strip() else ("",)
        return None if nodes is None else (nodes, match.end())


def _join(targets: Sequence[tuple[_Node, ...]], operator: str, options: list[str]) -> Conjunction | None:
    flat = [_flat(target) for target in targets]
    prompts = tuple(spans for spans, _ in flat)
    tags = tuple(tag for _, found in flat for tag in found)
    normalized = not (operator == "blend" and options and options[-1] == "no_normalize")
    try:
        shares = tuple(map(float, options if normalized else options[:-1])) or (1.0,) * len(prompts)
    except ValueError:
        return None
    if len(shares) != len(prompts) or (normalized and operator == "blend" and sum(shares) == 0):
        return None
    if operator == "blend":
        return Conjunction((Blend(prompts, shares, normalized),), tags)
    blends = tuple(Blend((spans,), weight=share) for spans, share in zip(prompts, shares, strict=True))
    return Conjunction(blends, tags)
