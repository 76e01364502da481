"""What a person sees of a run: a bar on a terminal, a line now and then in a log. Everything on stderr."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from sdscratch.training.engine.loop import Progress

__all__ = ["Display"]

LINE_EVERY = 30.0  # seconds, in a log


class Display:
    """Shows a run's progress while its context lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.bar = ProgressBar(
            TextColumn("{task.fields[step]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn("{task.fields[metrics]}", style="cyan"),
            TextColumn("{task.fields[left]} left"),
            console=self.console,
            expand=True,
            redirect_stdout=False,
        )
        self.task = self.bar.add_task("", total=1.0, step="starting", metrics="", left="?")
        self.moves = self.console.is_terminal and not quiet
        self.spoken = -LINE_EVERY

    def __enter__(self) -> Self:
        if self.moves:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.moves:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        spent = max(progress.share, 1e-9)
        left = duration(progress.seconds * (1.0 - spent) / spent)
        metrics = f"loss {progress.metrics['loss']:.4f}  {progress.speed:.3g} pictures/s"
        self.bar.update(
            self.task, completed=progress.share, step=f"step {progress.step}", metrics=metrics, left=left
        )
        now = time.monotonic()
        due = now - self.spoken > LINE_EVERY or progress.share >= 1.0
        if due and not self.moves and not self.quiet:
            self.spoken = now
            line = f"step {progress.step}  {progress.share:4.0%}  {metrics}  {left} left"
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line, above the bar."""
        if not self.quiet:
            self.console.print(Text(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
