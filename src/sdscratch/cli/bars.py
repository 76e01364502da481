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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sdscratch.cli.view import Advance, View, rate
from sdscratch.show import escaped

__all__ = ["BarView"]

SPEED_PERIOD = 3600.0  # seconds that the rate is taken from: a picture may take minutes
NAME_WIDTH = len("denoising 10/10")  # so that bars of usual names stand in line


class BarView(View):
    """Rich bars, a line each, which stay when they are done.

    Only the newest moves: of any number of stages, what happens now is in sight, and between two of them
    the terminal is free for results. A stage within another one has its bar below, and goes when it is done.
    """

    moves = True

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        self.console = Console(stderr=True)
        self.progress: Progress | None = None  # the stage in whose context others stand below

    @contextmanager
    def stage(self, name: str, total: float | None, unit: str = "") -> Iterator[Advance]:
        """A bar; without a total it only moves, and goes when it is done. Within another it stands below."""
        if self.progress is not None:
            task = self.progress.add_task(name, total=total, unit=unit)
            try:
                yield advancing(self.progress, task)
            finally:
                self.progress.remove_task(task)
            return
        columns: list[ProgressColumn] = [
            TextColumn(f"{{task.description:<{NAME_WIDTH}}}"),
            BarColumn(bar_width=None),
        ]
        if total is not None:
            columns += [Counted(), RateColumn(), TimeElapsedColumn(), Left()]
        progress = Progress(
            *columns,
            console=self.console,
            expand=True,
            transient=total is None,
            redirect_stdout=False,  # it would turn results into messages
            speed_estimate_period=SPEED_PERIOD,
        )
        task = progress.add_task(name, total=total, unit=unit)
        self.progress = progress
        try:
            with progress:
                yield advancing(progress, task)
        finally:
            self.progress = None

    def note(self, text: str) -> None:
        """Print a line, above the bar that moves."""
        self.console.print(escaped(text), markup=False, highlight=False, soft_wrap=True)

    def error(self, text: str) -> None:
        """The same of what failed."""
        self.note(f"sdscratch: error: {text}")


def advancing(progress: Progress, task: TaskID) -> Advance:
    """What moves a bar."""

    def advance(done: float) -> None:
        if done == 0:
            progress.reset(task)
        progress.update(task, completed=done)

    return advance


class Counted(MofNCompleteColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        """The count of one bar."""
        return Text("") if task.total is None else super().render(task)


class Left(TimeRemainingColumn):
    """How long it will take, where that is known."""

    def render(self, task: Task) -> Text:
        """The estimate of one bar."""
        return Text("") if task.total is None else Text.assemble("left ", super().render(task))


class RateColumn(ProgressColumn):
    """Units a second, as `rate` writes it."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        return Text(rate(speed, unit) if unit and speed else "", style="cyan")
