"""Where training pictures come from: a folder, or a generator that never ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Source"]


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with their captions."""

    pictures: Tensor  # [n, 3, H, W] float32 in −1 to 1
    captions: tuple[str, ...]


class Source(Protocol):
    """Gives every step its pictures.

    What stands at one place of one step's batch depends on the source's seed, the step and the place alone:
    not on how many processes share the batch, nor on whether the run was stopped in between.
    """

    def batch(self, step: int, places: range, device: torch.device) -> Batch:
        """The pictures at `places` of step `step`'s batch."""
        ...

    def held_out(self, count: int, device: torch.device) -> Batch:
        """Pictures that no step is ever given, always the same ones."""
        ...
