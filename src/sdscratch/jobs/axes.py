"""Plans in TOML: defaults, `[axes]` that make a product, `[zip]` side by side, `[[jobs]]` of their own.

    prompt = "a lighthouse"            what all pictures share
    [axes]                             in the order written, the last one changing fastest
    cfg_scale = [5, 7]
    seed = "1..4"                      1, 2, 3, 4
    steps = "10..30/10"                10, 20, 30
    strength = "0.4..1.0/4 points"     four values, evenly spaced
    init_img = {files = "photos/*.png"}
    prompt = {lines = "prompts.txt"}

No torch.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sdscratch.errors import UsageError
from sdscratch.jobs.options import HINTS
from sdscratch.jobs.source import read_lines
from sdscratch.settings import kind_of

__all__ = ["Axis", "expand", "tables"]

TABLES = ("axes", "zip", "jobs")
MOST = 10_000_000  # values of an axis
NUMBER = r"[+-]?\d+(?:\.\d+)?"
RANGE = re.compile(rf"\s*({NUMBER})\s*\.\.\s*({NUMBER})\s*(?:/\s*({NUMBER})\s*(points?)?)?\s*")


def expand(record: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """Every line of a plan, as values by field, in order.

    Args:
        record: the TOML file's tables.
        place: how an error names the file.

    Raises:
        UsageError: an axis of another form, or lists of different lengths side by side.
    """
    defaults = {key: value for key, value in record.items() if key not in TABLES}
    for own, table, where in _products(record, place):
        yield from _product({**defaults, **own}, table, where)


class Axis(NamedTuple):
    """What changes along one side of a sheet."""

    name: str
    labels: Sequence[str]


def tables(record: Mapping[str, Any], place: str) -> Iterator[list[Axis]]:
    """The axes of each product, in the order of its lines: the last one changes fastest."""
    for _, table, where in _products(record, place):
        axes, side = _axes(table, where)
        found = [Axis(name, [_shown(value) for value in values]) for name, values in axes.items()]
        if side:
            rows = zip(*side.values(), strict=True)
            found.append(Axis(", ".join(side), [", ".join(map(_shown, row)) for row in rows]))
        yield found


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _products(
    record: Mapping[str, Any], place: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """What each product's lines share, its tables, and how an error names it."""
    jobs = record.get("jobs")
    if jobs is None:
        yield {}, record, place
        return
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise UsageError(f"{place}: jobs are tables of their own, each headed [[jobs]]")
    for number, job in enumerate(jobs, start=1):
        own = {key: value for key, value in job.items() if key not in TABLES}
        table = {
            name: {**_table(record, name, place), **_table(job, name, place)} for name in ("axes", "zip")
        }
        yield own, table, f"{place}, job table {number}"


def _product(defaults: Mapping[str, Any], record: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    axes, side = _axes(record, place)
    count = len(next(iter(side.values()))) if side else 1
    for chosen in _combined(list(axes.values())):
        for row in range(count):
            beside = {name: values[row] for name, values in side.items()}
            yield {**defaults, **dict(zip(axes, chosen, strict=True)), **beside}


def _axes(record: Mapping[str, Any], place: str) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
    """The values of a product's axes, and of what goes side by side."""
    axes = {name: axis(name, value, place) for name, value in _table(record, "axes", place).items()}
    side = {name: axis(name, value, place) for name, value in _table(record, "zip", place).items()}
    if len({len(values) for values in side.values()}) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in side.items())
        raise UsageError(f"{place}: [zip] has lists of different lengths: {told}; let them be as long")
    return axes, side


def _combined(axes: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Their product, the last one changing fastest; unlike `itertools.product` it holds no copies of them."""
    if not axes:
        yield ()
        return
    for value in axes[0]:
        for rest in _combined(axes[1:]):
            yield value, *rest


def axis(name: str, value: Any, place: str) -> Sequence[Any]:
    """The values along one axis."""
    where = f"{place}: {name}"
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return _found(value, where)
    hint = HINTS.get(name.replace("-", "_"))
    if isinstance(value, str) and hint is not None and kind_of(hint) in (int, float):
        return _range(value, where, whole=kind_of(hint) is int)
    return [value]


def _range(text: str, where: str, *, whole: bool) -> Sequence[float]:
    match = RANGE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{where} is {text!r}, but a range says FROM..TO, FROM..TO/STEP or FROM..TO/N points"
        )
    low, high = float(match[1]), float(match[2])
    if match[4]:
        count = float(match[3])
        if count != int(count) or not 1 <= count <= MOST:
            raise UsageError(f"{where} asks for {match[3]} points; ask for a whole number of them")
        values = [low + (high - low) * i / max(count - 1, 1) for i in range(int(count))]
    else:
        step = float(match[3] or 1)
        count = (high - low) / step if step else -1.0
        if not 0 <= count < MOST:
            raise UsageError(f"{where} is {text!r}, which holds no value, or far too many")
        if whole and all(value == int(value) for value in (low, step)):
            return range(int(low), int(high) + 1, int(step))  # of millions, none is held
        values = [round(low + step * i, 10) for i in range(int(count + 1e-9) + 1)]
    if whole and any(value != int(value) for value in values):
        raise UsageError(f"{where} is {text!r}, but must hold whole numbers")
    return [int(value) for value in values] if whole else values


def _found(value: Mapping[str, Any], where: str) -> Sequence[Any]:
    """Files by a pattern, or the lines of one."""
    if value.keys() == {"files"}:
        names = sorted(glob.glob(str(value["files"]), recursive=True))  # noqa: PTH207 (a pattern may be absolute)
        if not names:
            raise UsageError(f"{where}: no file matches {value['files']!r}")
        return names
    if value.keys() == {"lines"}:
        lines = [line.text for line in read_lines(Path(str(value["lines"])))]
        kept = [text.strip() for text in lines if text.strip() and not text.lstrip().startswith("#")]
        if not kept:
            raise UsageError(f"{where}: {value['lines']} holds no line")
        return kept
    raise UsageError(f"{where} is a table, but only {{files = …}} and {{lines = …}} mean something")


def _table(record: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    table = record.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{place}: {name} must be a table, headed [{name}]")
    return table
