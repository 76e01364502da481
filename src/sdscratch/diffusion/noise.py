"""Seeded noise that no picture shares: the same for a seed on every device and at every batch size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Noise"]


class Noise:
    """A source of unit noise with one random generator a picture.

    Draws are made in float32 on the CPU, whatever the device: those that diffusers makes when given one
    `torch.Generator("cpu").manual_seed(seed)` a picture.

    Args:
        seeds: one a picture, 0 to 2⁶⁴ − 1.
        shape: of one picture's noise, without the batch: (c, h, w).
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self, *interval: float) -> Tensor:
        """The next draw of every picture, stacked: [n, *shape] float32 on the CPU; of any interval."""
        return torch.stack(
            [torch.randn(self.shape, generator=source, dtype=torch.float32) for source in self._generators]
        )
