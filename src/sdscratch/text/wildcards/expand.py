"""From a template to texts: one by chance, or every one that there is.

Chance is drawn as the package dynamicprompts 0.31 draws it (Python's generator, in the order of the text), so
a template and a seed give the text that they give there. What differs: of several options with weights, each
keeps its own weight when another is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from random import Random

from sdscratch.errors import UsageError
from sdscratch.text.wildcards.folders import Entry, Lists
from sdscratch.text.wildcards.template import (
    Access,
    Assignment,
    Choice,
    Listed,
    Method,
    Node,
    Text,
    Wrap,
    parse,
)
from sdscratch.text.wildcards.template import Sequence as Joined

__all__ = ["combinations", "expand"]

DEEPEST = 100  # lists and variables that name each other
MOST = 100_000  # of a choice's combinations that a turn counts
GROWN = 100_000  # characters of a text

parsed = lru_cache(4096)(parse)


def expand(template: str, seed: int, lists: Lists, turn: int = 0) -> str:
    """A text of the template.

    Args:
        seed: of every choice by chance.
        turn: which option `{@a|b}` takes, counted from 0.

    Raises:
        UsageError: the template makes no sense, or names a list or variable that there is not.
    """
    return next(_Sampling(lists, Random(seed), turn, "~").texts(parsed(template)))


def combinations(template: str, seed: int, lists: Lists) -> Iterator[str]:
    """Every text of the template, the last choice changing fastest; `{~a|b}` is still left to chance.

    Raises:
        UsageError: as `expand`.
    """
    return _Sampling(lists, Random(seed), 0, "!").texts(parsed(template))


@dataclass(frozen=True)
class _Sampling:
    """How choices are made at a place in a template."""

    lists: Lists
    chance: Random
    turn: int
    method: Method
    variables: Mapping[str, Node] = field(default_factory=dict)
    inside: frozenset[str] = frozenset()  # variables that are being expanded
    depth: int = 0

    def texts(self, node: Node) -> Iterator[str]:
        """The texts of a node: one, unless every combination is asked for."""
        match node:
            case Text():
                yield node.text
            case Joined():
                yield from self._joined(node.parts)
            case Choice():
                yield from self._by(node.method)._choice(node)
            case Listed():
                yield from self._by(node.method)._listed(node)
            case Access():
                yield from self._variable(node)
            case Wrap():
                for around in self.texts(node.around):
                    for inner in self.texts(node.inner):
                        yield _wrapped(around, inner)
            case Assignment():
                yield ""

    def one(self, node: Node) -> str:
        """The first of a node's texts."""
        return next(self.texts(node), "")

    def _by(self, method: Method | None) -> _Sampling:
        if method is None or (method == "!" and self.method != "!"):  # all of them fit into no single text
            return self
        return replace(self, method=method)

    def _deeper(self) -> _Sampling:
        if self.depth == DEEPEST:
            raise UsageError("the template's lists or variables name each other without end")
        return replace(self, depth=self.depth + 1)

    def _joined(self, parts: Sequence[Node]) -> Iterator[str]:
        values: dict[str, Node] = {}
        for part in parts:
            if isinstance(part, Assignment):
                values[part.name] = self._value(part, values)
        own = replace(self, variables={**self.variables, **values}) if values else self
        rest = [part for part in parts if not isinstance(part, Assignment)]
        for texts in own._product(rest):
            yield _bounded("".join(texts))

    def _value(self, assignment: Assignment, siblings: Mapping[str, Node]) -> Node:
        if not assignment.overwrites and assignment.name in self.variables:
            return self.variables[assignment.name]
        if not assignment.at_once:
            return assignment.value
        return Text(replace(self, variables={**siblings, **self.variables}).one(assignment.value))

    def _product(self, nodes: Sequence[Node]) -> Iterator[list[str]]:
        """The texts of several nodes, the last one changing fastest."""
        if self.method != "!":
            yield [self.one(node) for node in nodes]
        elif not nodes:
            yield []
        else:
            chosen = getattr(nodes[0], "method", None) in ("~", "@")
            if chosen:
                for rest in self._product(nodes[1:]):
                    yield [self.one(nodes[0]), *rest]
            else:
                for first in self.texts(nodes[0]):
                    for rest in self._product(nodes[1:]):
                        yield [first, *rest]

    def _variable(self, access: Access) -> Iterator[str]:
        node = self.variables.get(access.name, access.default)
        if node is None:
            raise UsageError(
                f"the template names the variable ${{{access.name}}}, which has no value; "
                f"give it one: ${{{access.name}=…}}"
            )
        if access.name in self.inside:
            raise UsageError(f"the template's variable ${{{access.name}}} names itself")
        yield from replace(self._deeper(), inside=self.inside | {access.name}).texts(node)

    def _choice(self, choice: Choice) -> Iterator[str]:
        if len(choice.options) == 1 and isinstance(choice.options[0], Listed):
            yield from self._choice(self._listed_choice(choice, choice.options[0]))
            return
        if len(choice.options) == 1 and self.method != "!":
            yield self.one(choice.options[0])
            return
        low, high = min(choice.low, len(choice.options)), min(choice.high, len(choice.options))
        if self.method == "~":
            count = self.chance.randint(low, high)
            taken = [self.one(node) for node in self._taken(choice, count)]
            yield _bounded(_separated(taken, choice.separator))
        elif self.method == "@":
            rows = list(islice(_rows(choice, low, high), MOST))
            texts = [self.one(node) for node in rows[self.turn % len(rows)]]
            yield _bounded(_separated(texts, choice.separator))
        else:
            yield from self._every(choice, low, high)

    def _taken(self, choice: Choice, count: int) -> list[Node]:
        """Options by chance, none of them twice."""
        pairs = list(zip(choice.options, choice.weights, strict=True))
        taken = []
        for _ in range(count):
            weights = [weight for _, weight in pairs]
            if not sum(weights) > 0 or min(weights) < 0:
                raise UsageError("the template has a choice whose weights are not above 0; one must be")
            pair = self.chance.choices(pairs, weights=weights)[0]
            taken.append(pair[0])
            pairs.remove(pair)
        return taken

    def _every(self, choice: Choice, low: int, high: int) -> Iterator[str]:
        seen: set[tuple[str, ...]] = set()
        for row in _rows(choice, low, high):
            for texts in self._product(row):
                key = tuple(dict.fromkeys(texts))
                if len(key) == len(row) and key not in seen:
                    seen.add(key)
                    yield _bounded(_separated(texts, choice.separator))

    def _listed_choice(self, choice: Choice, listed: Listed) -> Choice:
        """`{2$$__name__}`: some of a list's lines, each as often as its weight says."""
        entries = self.lists.matching(self.one(listed.path))
        options = [parsed(entry.text) for entry in entries for _ in range(int(entry.weight))]
        low, high = min(choice.low, len(entries)), min(choice.high, len(entries))
        method = listed.method or choice.method
        return Choice(tuple(options), (1.0,) * len(options), low, high, choice.separator, method)

    def _listed(self, listed: Listed) -> Iterator[str]:
        entries = self.lists.matching(self.one(listed.path))
        inner = replace(self._deeper(), variables={**self.variables, **listed.variables})
        if self.method == "~":
            yield from inner.texts(parsed(self._drawn(entries)))
        elif self.method == "@":
            yield from inner.texts(parsed(entries[self.turn % len(entries)].text))
        else:
            for entry in entries:
                for _ in range(int(entry.weight)):
                    yield from inner.texts(parsed(entry.text))

    def _drawn(self, entries: Sequence[Entry]) -> str:
        weights = [entry.weight for entry in entries]
        texts = [entry.text for entry in entries]
        if len(set(weights)) == 1:
            return self.chance.choice(texts)
        if not sum(weights) > 0 or min(weights) < 0:
            raise UsageError("a wildcard's list has weights that are not above 0; one must be")
        return self.chance.choices(texts, weights=weights, k=10)[0]  # ten at once, as there


def _rows(choice: Choice, low: int, high: int) -> Iterator[list[Node]]:
    """Every way to take so many options, in their order; equal options are one."""

    def rows(options: Sequence[Node], count: int) -> Iterator[list[Node]]:
        if count == 0:
            yield []
            return
        for option in options:
            for rest in rows([other for other in options if other != option], count - 1):
                yield [option, *rest]

    for count in range(low, high + 1):
        yield from rows(choice.options, count)


def _separated(texts: Sequence[str], separator: str) -> str:
    """Joined; what is empty at either end leaves no separator there."""
    if len(texts) == 1:
        return texts[0]
    return separator.join(texts).removeprefix(separator).removesuffix(separator)


def _wrapped(around: str, inner: str) -> str:
    """A text with the other in the place of its first `...`."""

    match = re.search(r"[᠁…⋮⋯⋰⋱︙]+|\.{3,}", around)
    return around + inner if match is None else around[: match.start()] + inner + around[match.end() :]


def _bounded(text: str) -> str:
    if len(text) > GROWN:
        raise UsageError(f"the template grows beyond {GROWN:,} characters")
    return text
