"""What a person sees while they wait: bars on a terminal, a line a stage in a log, nothing with --quiet."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

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

__all__ = ["Advance", "View", "make_view"]

NAME_WIDTH = len("denoising 10/10")  # so that bars of usual names stand in line

Advance = Callable[[float], None]  # takes how many of a stage's units are done; 0 begins the stage anew


class View:
    """Where stages are shown; this one shows nothing, its subclasses something.

    A context manager around all the stages, which also takes in what the library logs.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.handler = _NoteHandler(self)
        self.level = logging.INFO if verbose else logging.WARNING

    def __enter__(self) -> Self:
        library = logging.getLogger("sdscratch")
        library.addHandler(self.handler)
        library.setLevel(self.level)
        library.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        library = logging.getLogger("sdscratch")
        library.removeHandler(self.handler)
        library.setLevel(logging.NOTSET)
        library.propagate = True

    @contextmanager
    def stage(self, name: str, total: float | None, unit: str = "") -> Iterator[Advance]:
        """Show a stage while the context lasts; its total is None where it cannot be known."""
        yield lambda done: None

    def note(self, text: str) -> None:
        """Show a line of text."""


class PlainView(View):
    """A line a stage, once it is done: logs stay readable."""

    @contextmanager
    def stage(self, name: str, total: float | None, unit: str = "") -> Iterator[Advance]:
        """Print the stage's name and time at its end."""
        start = time.perf_counter()
        yield lambda done: None
        seconds = time.perf_counter() - start
        amount = f", {total:g} {unit}, {rate(total / seconds, unit)}" if unit and total else ""
        self.note(f"{name}: {seconds:.1f} s{amount}")

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)


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
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class RateColumn(ProgressColumn):
    """Units a second, as `rate` writes it."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        return Text(rate(speed, unit) if unit and speed else "", style="cyan")


class _NoteHandler(logging.Handler):
    """The library's log, shown as notes."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.view.note(prefix + record.getMessage())


def make_view(*, quiet: bool = False, verbose: bool = False) -> View:
    """The view that suits this stderr."""
    if quiet:
        return View()
    return BarView(verbose) if sys.stderr.isatty() else PlainView(verbose)


def rate(speed: float, unit: str) -> str:
    """2.31 it/s, or 3.20 s/it below one a second."""
    return f"{speed:.2f} {unit}/s" if speed >= 1.0 else f"{1.0 / speed:.2f} s/{unit}"
