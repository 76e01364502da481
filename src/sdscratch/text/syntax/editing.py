"""A1111's prompt editing: `[a:b:0.5]` is a, then b; `[b:8]`, `[a::8]` add and remove; `[a|b]` alternates.

The grammar (web UI, `prompt_parser.py`, in words): a prompt is text, groups in round or square brackets,
edits `[before:after:number]`, where `before:` may be left out, and alternations of two texts or more. Stray
brackets and colons are text. A bar outside an alternation, or a backslash before nothing, is refused, and
then the whole prompt is taken as it stands. What is nested inside a group must itself be well-formed, so
that a bracket can only be closed by the one that fits: one pass with a stack decides it, at any depth.

That grammar is ambiguous: a group may also be read as stray brackets around text. Which reading the tool's
parser takes follows from the order in which it comes upon them: `[a:3][[` is text, `[a:3][` is not.
`_take_apart` takes the same one, by a rule found by trial, which held for thousands of prompts like those
that people write. It is known to fail beside stray brackets where a group holds an alternation and more
text, or ends in an empty pair of brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sdscratch.errors import UsageError
from sdscratch.text.prompt import Stage

__all__ = ["check_edits", "stages"]

PIECES = re.compile(r"(?:[^\\\[\]():|]|\\.)+|[\[\]():|]")  # no DOTALL: a backslash may not end a line
NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
CLOSING = {"(": ")", "[": "]"}
STRAY = frozenset("()[]:")


@dataclass(frozen=True)
class _Group:
    """A well-formed pair of brackets in a row of pieces."""

    end: int  # of its closing bracket
    borders: tuple[int, ...]  # of its texts: opening bracket, colons or bars, closing bracket
    number: str | None = None  # of an edit
    alternates: bool = False

    @property
    def edits(self) -> bool:
        """Whether it is more than text in brackets."""
        return self.alternates or self.number is not None

    def step(self, timeline: _Timeline) -> int:
        """The last step of an edit's first text."""
        return timeline.step(self.number or "0")

    def text(self, step: int, timeline: _Timeline) -> tuple[int, int]:
        """First piece, and the one after the last, of what is read at a step."""
        if self.alternates:
            index = (step - 1) % (len(self.borders) - 1)
        elif len(self.borders) == 4:
            index = 0 if step <= self.step(timeline) else 1
        elif step <= self.step(timeline):
            return 0, 0  # nothing before it appears
        else:
            index = 0
        return self.borders[index] + 1, self.borders[index + 1]


@dataclass(frozen=True)
class _Timeline:
    """How numbers in a prompt become steps of this pass."""

    steps: int
    first_pass: int | None  # steps of the pass before this one, which a high-resolution pass counts on from
    old: bool  # web UI before 1.6: below 1 a share of the steps, else a step

    def value(self, number: str) -> float:
        """Not yet a whole step, nor held to the steps that there are."""
        value = float(number)
        if self.old:
            return value * self.steps if value < 1 else value
        if "." in number:
            return (value - (0.0 if self.first_pass is None else 1.0)) * self.steps
        return value - (self.first_pass or 0)

    def step(self, number: str) -> int:
        value = self.value(number)
        return self.steps if value >= self.steps else max(0, int(max(value, 0.0)))


@dataclass
class _Open:
    """An opening bracket that waits for its closing one."""

    place: int
    bracket: str
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)
    sound: bool = True  # nothing inside is stray


def stages(
    text: str, steps: int, *, first_pass: int | None = None, old_timeline: bool = False
) -> tuple[Stage, ...]:
    """Which text is read up to which evaluation of the network.

    Args:
        steps: evaluations of this pass: twice its steps for samplers of second order.
        first_pass: for a high-resolution pass, the evaluations of the one before it. A number with a point
            then counts passes (1.5 is the middle of this one), a whole number evaluations from the first on.
        old_timeline: numbers below 1 are shares and all others steps, as before web UI 1.6, in both passes.
    """
    timeline = _Timeline(steps, None if old_timeline else first_pass, old_timeline)
    pieces = _cut(text)
    groups = None if pieces is None else _groups(pieces)
    if pieces is None or groups is None:
        return (Stage(steps, text),)
    ends = {steps}
    for group in groups.values():
        if group.alternates:
            ends.update(range(1, steps + 1))
        elif (end := group.step(timeline)) >= 1:
            ends.add(end)
    return tuple(Stage(end, "".join(_read(pieces, groups, end, timeline))) for end in sorted(ends))


def check_edits(text: str, steps: int, *, first_pass: int | None = None) -> None:
    """Refuse an edit that cannot act, which the web UI passes over in silence.

    Raises:
        UsageError: its step lies before the first or behind the last one.
    """
    pieces = _cut(text)
    last = steps + (first_pass or 0)
    for place, group in (_groups(pieces) or {}).items() if pieces else ():
        if group.number is None:
            continue
        first, final = _Timeline(first_pass or steps, None, False), _Timeline(steps, first_pass, False)
        if first.value(group.number) < 0 or final.value(group.number) > steps:
            edit = "".join((pieces or [])[place : group.end + 1])
            asked = "is 1 evaluation" if last == 1 else f"are {last} evaluations"
            raise UsageError(
                f"the prompt's {edit!r} changes at {group.number}, but there {asked} of the network; "
                f"say a number from 0 to {last}, or a share with a point, like 0.5"
            )


def _cut(text: str) -> list[str] | None:
    """The text in pieces: brackets, colons and bars are one each. None: a backslash that escapes nothing."""
    pieces = PIECES.findall(text)
    return pieces if sum(map(len, pieces)) == len(text) else None


def _groups(pieces: list[str]) -> dict[int, _Group] | None:
    """The groups that edit anything, by where they begin. None: a bar stands outside of one."""
    groups: dict[int, _Group] = {}
    opened: list[_Open] = []
    for place, piece in enumerate(pieces):
        if piece in CLOSING:
            opened.append(_Open(place, piece))
        elif piece == "|":
            if not opened:
                return None
            opened[-1].bars.append(place)
        elif piece == ":" and opened:
            opened[-1].colons.append(place)
        elif piece in CLOSING.values() and opened:
            if CLOSING[opened[-1].bracket] != piece:  # then none of those that are open is ever closed
                if any(bracket.bars for bracket in opened):
                    return None
                opened.clear()
                continue
            bracket = opened.pop()
            group = _group(bracket, place, pieces)
            if group is None:
                if bracket.bars:
                    return None
                if opened:
                    opened[-1].sound = False
            else:
                groups[bracket.place] = group
    if any(bracket.bars for bracket in opened):
        return None
    _take_apart(pieces, groups)
    return {place: group for place, group in groups.items() if group.edits}


def _take_apart(pieces: list[str], groups: dict[int, _Group]) -> None:
    """Remove the groups that the tool's parser reads as stray brackets around text.

    Looked at from the right: a group, or several that end together, with stray brackets and colons right
    behind them, is taken apart if its closing brackets and these are an odd number. An empty pair of
    brackets counts as two, and text that begins with white space, right before the closing brackets, as
    one: it is space and text. Only groups that no other one holds can be taken apart, alternations never: a
    bar cannot be stray.
    """
    begins = {group.end: place for place, group in groups.items()}
    # Brackets and colons up to the next text, and whether one of them is no empty pair's.
    behind, stray = 0, False
    place = len(pieces) - 1
    while place >= 0:
        begin = begins.get(place)
        if begin is None:
            single = pieces[place] in STRAY
            behind, stray = (behind + 1, True) if single else (0, False)
            place -= 1
        elif begin == place - 1:
            behind += 2
            place = begin - 1
        else:
            ending = _ending_together(place, begins, groups) if stray else []
            if ending and (len(ending) + _spaced(pieces[ending[-1] - 1]) + behind) % 2:
                for end in ending:
                    del groups[begins.pop(end)]
            else:
                behind, stray = 0, False
                place = begin - 1


def _spaced(text: str) -> bool:
    return text[0].isspace() and not (text.isspace() or NUMBER.fullmatch(text))


def _ending_together(place: int, begins: Mapping[int, int], groups: Mapping[int, _Group]) -> list[int]:
    """The closing brackets of a group and of those at its end that may be taken apart with it."""
    ending: list[int] = []
    while (begin := begins.get(place)) is not None and begin != place - 1 and not groups[begin].alternates:
        ending.append(place)
        if groups[begin].edits:
            break
        place -= 1
    return ending


def _group(bracket: _Open, end: int, pieces: list[str]) -> _Group | None:
    """What a closed pair of brackets is; None if its brackets are stray."""
    colons, bars = bracket.colons, bracket.bars
    if not bracket.sound or (colons and bars):
        return None
    if bracket.bracket == "(":
        return _Group(end, ()) if len(colons) <= 1 and not bars else None
    if bars:
        return _Group(end, (bracket.place, *bars, end), alternates=True)
    if not colons:
        return _Group(end, ())
    number = NUMBER.fullmatch("".join(pieces[colons[-1] + 1 : end]))
    if len(colons) > 2 or number is None:
        return None
    return _Group(end, (bracket.place, *colons, end), number=number[1])


def _read(pieces: list[str], groups: Mapping[int, _Group], step: int, timeline: _Timeline) -> Iterator[str]:
    """The pieces that are read at a step."""
    waiting = [(0, len(pieces))]  # a stack, for groups may be nested a thousand deep
    while waiting:
        place, end = waiting.pop()
        while place < end:
            group = groups.get(place)
            if group is None:
                yield pieces[place]
                place += 1
            else:
                waiting.append((group.end + 1, end))
                place, end = group.text(step, timeline)
