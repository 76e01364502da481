"""Bars on a terminal, drawn by Rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sdscratch.cli.view import Advance, View, rate
from sdscratch.show import escaped

__all__ = ["BarView"]

NAME_WIDTH = len("denoising 10/10")  # so that bars of usual names stand in line


class BarView(View):
    """Rich bars, a line each, which stay when they are done.

    Only the newest moves: of any number of stages, what happens now is in sight, and between two of them
    the terminal is free for results.
    """

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: float | None, unit: str = "") -> Iterator[Advance]:
        """A bar; without a total it only moves, and goes when it is done."""
        columns: list[ProgressColumn] = [
            TextColumn(f"{{task.description:<{NAME_WIDTH}}}"),
            BarColumn(bar_width=None),
        ]
        if total is not None:
            columns += [MofNCompleteColumn(), RateColumn(), TimeElapsedColumn(), TextColumn("left")]
            columns += [TimeRemainingColumn()]
        progress = Progress(
            *columns,
            console=self.console,
            expand=True,
            transient=total is None,
            redirect_stdout=False,  # it would turn results into messages
        )
        task = progress.add_task(name, total=total, unit=unit)

        def advance(done: float) -> None:
            if done == 0:
                progress.reset(task)
            progress.update(task, completed=done)

        with progress:
            yield advance

    def note(self, text: str) -> None:
        """Print a line, above the bar that moves."""
        self.console.print(escaped(text), markup=False, highlight=False, soft_wrap=True)

    def error(self, text: str) -> None:
        """The same of what failed."""
        self.note(f"sdscratch: error: {text}")


class RateColumn(ProgressColumn):
    """Units a second, as `rate` writes it."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        return Text(rate(speed, unit) if unit and speed else "", style="cyan")
