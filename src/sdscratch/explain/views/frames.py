"""Pictures and texts by step: what the page changes when its slider moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Frames", "pooled", "spread"]


@dataclass
class Frames:
    """Everything of one run that depends on the step.

    Attributes:
        steps: how many there are.
        of: by a kind of frames ("loop"), which frame each step shows.
        images: grey PNGs in base64, by what they show: (kind of frames, one a frame).
        photos: WebPs likewise.
        texts: by what they say, one a step.
    """

    steps: int
    of: dict[str, list[int]] = field(default_factory=dict)
    images: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    photos: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    texts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def index(self, kind: str, kept: Sequence[int]) -> None:
        """Say which steps have a frame of this kind; each of the others shows the nearest."""
        self.of[kind] = [
            min(range(len(kept)), key=lambda frame: (abs(kept[frame] - step), frame))
            for step in range(self.steps if kept else 0)
        ]

    def to_json(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {
            "steps": self.steps,
            "of": self.of,
            "images": {name: {"by": kind, "all": all} for name, (kind, all) in self.images.items()},
            "photos": {name: {"by": kind, "all": all} for name, (kind, all) in self.photos.items()},
            "texts": {name: {"by": kind, "all": all} for name, (kind, all) in self.texts.items()},
        }


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers from 0 to count − 1, evenly, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def pooled(x: Tensor, longest: int) -> Tensor:
    """[k, h, w] with means of neighbours, so that no side is longer."""
    if max(x.shape[1:]) <= longest:
        return x
    size = [max(1, round(side * longest / max(x.shape[1:]))) for side in x.shape[1:]]
    return torch.nn.functional.interpolate(x[None], size=size, mode="area")[0]
