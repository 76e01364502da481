"""What a training run says while it runs: to people, and to a file."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Report"]

METRICS = "metrics.jsonl"
METRICS_EVERY = 10  # steps
LINE_EVERY = 100  # steps


class Report:
    """A bar on a terminal, a line now and then in a log, every tenth step in the metrics file."""

    def __init__(self, folder: Path) -> None:
        self.console = Console(stderr=True)
        self.metrics = (folder / METRICS).open("a", encoding="utf-8")
        self.bar = Progress(
            TextColumn("{task.fields[text]}"), BarColumn(), TimeElapsedColumn(), console=self.console
        )
        self.task = self.bar.add_task("train", total=1.0, text="starting")

    def __enter__(self) -> Report:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()
        self.metrics.close()

    def __call__(self, step: int, seconds: float, progress: float, figures: dict[str, float]) -> None:
        text = f"step {step} " + " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.bar.update(self.task, completed=progress, text=text)
        if step % METRICS_EVERY == 0:
            record = {"step": step, "seconds": round(seconds, 1), **figures}
            self.metrics.write(json.dumps(record) + "\n")
            self.metrics.flush()
        if step % LINE_EVERY == 0 and not self.console.is_terminal:
            self.console.print(f"{progress:6.1%} {seconds:7.0f} s {text}", soft_wrap=True, highlight=False)
