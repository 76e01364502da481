"""`metrics.jsonl`: a line a step, with no gaps and no step twice, however often a run was killed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write, write_error

__all__ = ["METRICS", "Metrics", "MetricsLog", "read_metrics"]

METRICS = "metrics.jsonl"

Metrics = Mapping[str, Tensor]
"""Numbers worth keeping, 0-dimensional and without gradients: nobody waits for a GPU to have them."""


class MetricsLog:
    """What each step gave. Steps wait in memory until `flush`, which alone waits for the device."""

    def __init__(
        self, folder: Path, step: int, record: Callable[[dict[str, float]], None] = lambda line: None
    ) -> None:
        """Go on after step `step`: lines of later ones, which will be done again, are dropped.

        Args:
            record: is given every line that is written.

        Raises:
            SdscratchError: the operating system refuses.
        """
        self.path = folder / METRICS
        self.record = record
        self.waiting: list[tuple[dict[str, float], Metrics]] = []
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        with atomic_write(self.path, overwrite=True) as file:
            file.write("".join(json.dumps(record) + "\n" for record in kept).encode())

    def add(self, step: int, metrics: Metrics, **known: float) -> None:
        """Take in one step."""
        self.waiting.append(({"step": step, **known}, metrics))

    def flush(self) -> dict[str, float]:
        """Write the lines that wait; return the newest.

        Raises:
            SdscratchError: a value is not finite, or the operating system refuses.
        """
        if not self.waiting:
            return {}
        names = list(self.waiting[0][1])
        values = torch.stack(
            [torch.stack([metrics[name].float() for name in names]) for _, metrics in self.waiting]
        )
        records = []
        for (known, _), row in zip(self.waiting, values.tolist(), strict=True):
            record = known | dict(zip(names, row, strict=True))
            if not all(map(math.isfinite, row)):
                raise SdscratchError(
                    f"loss or gradient of step {known['step']} is not finite; lower the learning rate and "
                    "resume from the last checkpoint"
                )
            records.append({"step": record.pop("step"), "loss": record.pop("loss"), **record})
        self.waiting.clear()
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(_short(record)) + "\n" for record in records)
        except OSError as error:
            raise write_error(self.path, error) from error
        for line in records:
            self.record(line)
        return records[-1]


def _short(record: dict[str, float]) -> dict[str, float]:
    return {name: value if name == "loss" else float(f"{value:.6g}") for name, value in record.items()} | {
        "step": record["step"]
    }


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a metrics file; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
