"""The syntax of templates, as the package dynamicprompts 0.31 reads it.

    {a|b}             one of them                   {0.5::a|2::b}    with weights
    {2$$a|b|c}        two of them, `,` between      {1-2$$ and $$a|b}    one or two, ` and ` between
    __dir/name__      a line of a list              __dir/*__, __**/x__  of all lists that match
    __name(v=red)__   with a variable for its text  ${v={a|b}} ${v}      chosen anew at each use
    ${v=!{a|b}}       chosen once                   ${v:red}, ${v?=red}  if it has no value yet
    {~a|b} {@a|b} {!a|b}   by chance, in turn, every one     %{(...:1.2)$$a}   what stands around a text
    # …, // …, /* … */     comments, where a text begins

What that package refuses though only one thing can be meant is text: a single `$`, `%` or `__`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sdscratch.errors import UsageError

__all__ = ["Access", "Assignment", "Choice", "Listed", "Method", "Node", "Sequence", "Text", "Wrap"]
__all__ += ["is_template", "parse"]

Method = Literal["~", "!", "@"]
DEEPEST = 60  # constructs in one another

COMMENT = re.compile(r"\s*(?:#[^\n]*|//[^\n]*|/\*.*?\*/)", re.DOTALL)
NAME = re.compile(r"\s*([A-Za-z_-][A-Za-z0-9_-]*)\s*")
BOUNDS = re.compile(
    r"\s*(?:(?P<low>\d+)\s*-\s*(?P<high>\d+)|-\s*(?P<most>\d+)|(?P<least>\d+)\s*-|(?P<exact>\d+))"
    r"\s*\$\$"
)
SEPARATOR = re.compile(r"([^${}]+)\$\$")
WEIGHT = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+)|\d+)\s*::")
METHOD = re.compile(r"\s*([~!@])")
VARIABLES = re.compile(r"\s*\(([^)]+)\)")
BLANKS = re.compile(r"\s*")


@dataclass(frozen=True)
class Text:
    """Itself."""

    text: str


@dataclass(frozen=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """Some of several."""

    options: tuple[Node, ...]
    weights: tuple[float, ...]
    low: int = 1
    high: int = 1
    separator: str = ","
    method: Method | None = None


@dataclass(frozen=True)
class Listed:
    """A line of the lists whose names match."""

    path: Node
    variables: Mapping[str, Node] = field(default_factory=dict)
    method: Method | None = None


@dataclass(frozen=True)
class Assignment:
    """A variable's value, from here on and before."""

    name: str
    value: Node
    overwrites: bool  # a value that it has already
    at_once: bool  # the value is chosen now, not at each use


@dataclass(frozen=True)
class Access:
    """What a variable stands for."""

    name: str
    default: Node | None


@dataclass(frozen=True)
class Wrap:
    """A text, and what stands around it where `...` is."""

    around: Node
    inner: Node


Node = Text | Sequence | Choice | Listed | Assignment | Access | Wrap


def is_template(text: str) -> bool:
    """Whether anything in a prompt asks to be expanded; where nothing does, it is no template at all."""
    return "{" in text or re.search(r"__\S[^\n]*?__", text) is not None


def parse(text: str) -> Node:
    """A template taken apart.

    Raises:
        UsageError: a bracket that is never closed, or too many in one another.
    """
    parser = _Parser(text)
    node = parser.prompt("", 0)
    assert parser.at == len(text)
    return node


@dataclass
class _Parser:
    """A way through a text; every method leaves `at` behind what it took."""

    text: str
    at: int = 0

    def prompt(self, ends: str, depth: int) -> Node:
        """What stands up to one of the characters, or to `$$` where that is among them."""
        if depth > DEEPEST:
            raise UsageError(f"the template has more than {DEEPEST} brackets in one another")
        parts: list[Node] = []
        while True:
            while match := COMMENT.match(self.text, self.at):
                self.at = match.end()
            if self.at == len(self.text) or self._ends(ends):
                break
            part = self._part(ends, depth)
            if isinstance(part, Text) and parts and isinstance(parts[-1], Text):
                part = Text(parts.pop().text + part.text)  # type: ignore[union-attr]
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _ends(self, ends: str) -> bool:
        here = self.text[self.at]
        return (here in ends and here != "$") or ("$" in ends and self.text.startswith("$$", self.at))

    def _part(self, ends: str, depth: int) -> Node:
        here = self.text[self.at : self.at + 2]
        if here == "${":
            return self._variable(depth)
        if here == "%{":
            return self._wrap(depth)
        if here[0] == "{":
            return self._choice(depth)
        if here == "__" and (found := self._listed(depth)) is not None:
            return found
        return self._text(ends)

    def _text(self, ends: str) -> Text:
        stop = re.compile(rf"__|[#{{$%{re.escape(ends)}]")
        found = stop.search(self.text, self.at + 1)
        start, self.at = self.at, found.start() if found else len(self.text)
        return Text(self.text[start : self.at])

    def _choice(self, depth: int) -> Node:
        start = self.at
        self.at += 1
        method = self._method()
        low = high = 1
        bounds = self._take(BOUNDS)
        separator = ","
        if bounds is not None and (said := self._take(SEPARATOR)) is not None:
            separator = said[1]
        options: list[Node] = []
        weights: list[float] = []
        while True:
            self._take(BLANKS)  # before a weight only: what follows one belongs to the text
            weight = self._take(WEIGHT)
            weights.append(1.0 if weight is None else float(weight[1]))
            options.append(self.prompt("|}", depth + 1))
            if self._close(start, "{", "|}") == "}":
                break
        if bounds is not None:
            low, high = _bounds(bounds, len(options))
        return Choice(tuple(options), tuple(weights), low, high, separator, method)

    def _listed(self, depth: int) -> Listed | None:
        """`__path__`; None where nothing closes it, and the underscores are text."""
        start = self.at
        self.at += 2
        method = self._method()
        parts: list[Node] = []
        while self.at < len(self.text) and not self.text.startswith("__", self.at):
            here = self.text[self.at : self.at + 2]
            if here == "${":
                part: Node = self._variable(depth)
                if isinstance(part, Access) and part.default is None:
                    part = Access(part.name, Text(part.name))  # where it has no value it is its name
                parts.append(part)
            elif here[0] == "{":
                parts.append(self._choice(depth))
            elif here[0] in "()#\n":
                break
            else:
                parts.append(self._take_text(r"__|[#{$()\n]"))
        variables = self._take(VARIABLES) if parts else None
        if not parts or not self.text.startswith("__", self.at):
            self.at = start
            return None
        self.at += 2
        path = parts[0] if len(parts) == 1 else Sequence(tuple(parts))
        return Listed(path, {} if variables is None else _spelled(variables[1]), method)

    def _take_text(self, stop: str) -> Text:
        found = re.compile(stop).search(self.text, self.at + 1)
        start, self.at = self.at, found.start() if found else len(self.text)
        return Text(self.text[start : self.at])

    def _variable(self, depth: int) -> Node:
        start = self.at
        self.at += 2
        name = self._take(NAME)
        if name is None:
            raise UsageError(f"the template has a ${{ at character {start + 1} with no variable's name in it")
        mark = self._take(re.compile(r"(\??)=(!?)|(:)"))
        self._take(BLANKS)
        value = None if mark is None else self.prompt("}", depth + 1)
        self._close(start, "${", "}")
        if mark is None or mark[3]:
            return Access(name[1], value)
        assert value is not None
        return Assignment(name[1], value, overwrites=not mark[1], at_once=bool(mark[2]))

    def _wrap(self, depth: int) -> Node:
        start = self.at
        self.at += 2
        self._take(BLANKS)
        around = self.prompt("$}", depth + 1)
        if not self.text.startswith("$$", self.at):
            raise UsageError(f"the template has a %{{ at character {start + 1} without $$ in it")
        self.at += 2
        self._take(BLANKS)
        inner = self.prompt("}", depth + 1)
        self._close(start, "%{", "}")
        return Wrap(around, inner)

    def _close(self, start: int, opening: str, ends: str) -> str:
        if self.at == len(self.text):
            raise UsageError(
                f"the template has a {opening} at character {start + 1} that no }} closes; close it, or "
                "leave wildcards off (--no-wildcards)"
            )
        self.at += 1
        assert self.text[self.at - 1] in ends
        return self.text[self.at - 1]

    def _method(self) -> Method | None:
        match = self._take(METHOD)
        return None if match is None else match[1]  # type: ignore[return-value]

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match


def _bounds(match: re.Match[str], count: int) -> tuple[int, int]:
    """How many of `count` options are taken, at least and at most."""
    if match["exact"]:
        low = high = int(match["exact"])
    else:
        low = int(match["low"] or match["least"] or 1)
        high = int(match["high"] or match["most"] or count)
    return max(min(low, high), 0), max(low, high)


def _spelled(text: str) -> Mapping[str, Node]:
    """`season=summer, colour={red|blue}` as variables."""
    pairs = (each.partition("=") for each in text.split(","))
    return {name.strip(): parse(value.strip()) for name, _, value in pairs}
