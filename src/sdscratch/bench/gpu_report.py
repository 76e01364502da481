"""What the check of a GPU found: rows, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "Row", "line", "table"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    group: str
    name: str
    value: float | None  # None: the same to the bit, or not measured
    unit: str
    bar: float | None  # None: a figure, no test
    passed: bool | None  # None: a figure, or left out
    note: str = ""


@dataclass
class Report:
    """All that was looked at, and where."""

    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing that was looked at is wrong; what was left out does not count."""
        return all(row.passed is not False for row in self.rows)


def line(row: Row) -> str:
    """A row in words."""
    verdict = {True: "ok", False: "WRONG", None: ""}[row.passed]
    return f"{row.group}: {row.name}: {shown(row)} {verdict} {row.note}".rstrip()


def shown(row: Row) -> str:
    """The figure of a row."""
    if row.value is None:
        return "identical" if row.passed else "–"
    return f"{row.value:.3g} {row.unit}"


def table(report: Report) -> str:
    """The rows as Markdown."""
    lines = ["| | | measured | bar | |", "|---|---|---|---|---|"]
    for row in report.rows:
        bar = "" if row.bar is None else f"{row.bar:g}"
        verdict = {True: "ok", False: "**wrong**", None: row.note}[row.passed]
        lines.append(f"| {row.group} | {row.name} | {shown(row)} | {bar} | {verdict} |")
    return "\n".join(lines)
