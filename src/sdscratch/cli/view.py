"""Where stages are shown: nowhere, or as lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from sdscratch.show import escaped

__all__ = ["Advance", "PlainView", "View", "duration", "rate"]

Advance = Callable[[float], None]  # takes how many of a stage's units are done; 0 begins the stage anew


class View:
    """Where stages are shown; this one shows nothing, its subclasses something.

    A context manager around all the stages, which also takes in what the library logs.
    """

    moves = False  # whether what is shown goes when it is done

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

    def error(self, text: str) -> None:
        """Show what failed though the command goes on: with --quiet too."""
        print(f"sdscratch: error: {escaped(text)}", file=sys.stderr, flush=True)


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
        print(escaped(text), file=sys.stderr, flush=True)


class _NoteHandler(logging.Handler):
    """The library's log, shown as notes."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.view.note(prefix + record.getMessage())


def duration(seconds: float) -> str:
    """40 s, 3 min, 2.5 h, 4 days: one number, for an estimate."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds / length < most:
            amount = seconds / length
            return f"{amount:.1f} {unit}" if unit == "h" and amount < 10 else f"{amount:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def rate(speed: float, unit: str) -> str:
    """2.31 it/s, or 3.20 s/it below one a second."""
    return f"{speed:.2f} {unit}/s" if speed >= 1.0 else f"{1.0 / speed:.2f} s/{unit}"
