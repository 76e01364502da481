"""What a step is given: pictures or latents, from a folder or from a generator that never ends.

A step's batch has indices 0 to size − 1. Processes, threads and gradient accumulation are only ways to share
them out; everything random is a function of (seed, step, index). So a run goes on as the same run after
it was stopped, and on two machines as on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Batch", "LatentSource", "Latents", "RewordingSource", "Source"]


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with their captions."""

    pictures: Tensor  # [n, 3, H, W] float32 in −1 to 1
    captions: tuple[str, ...]


class Source(Protocol):
    """Gives every step its pictures.

    What stands at one index of one step's batch depends on the source's seed, the step and the index alone:
    not on how many processes share the batch, nor on whether the run was stopped in between. Several threads
    ask at once.
    """

    def batch(self, step: int, indices: range, device: torch.device) -> Batch:
        """The pictures at `indices` of step `step`'s batch."""
        ...

    def held_out(self, count: int, device: torch.device) -> Batch:
        """Pictures that no step is ever given, always the same ones."""
        ...


@runtime_checkable
class RewordingSource(Source, Protocol):
    """A source that can say what its pictures show in other words, without making them again."""

    def caption(self, step: int, index: int, wording: int) -> str:
        """A caption of the picture at one index; wording 0 is the one that `batch` gives with it."""
        ...


@dataclass(frozen=True)
class Latents:
    """Scaled latents as the U-Net sees them, with their captions, and, for a control, with its hints."""

    values: Tensor  # [n, c, h, w] float32
    captions: tuple[str, ...]
    hints: Tensor | None = None  # [n, k, H, W] float32 in 0 to 1


class LatentSource(Protocol):
    """Gives every step its latents; a function of the step and the indices, as a `Source` is."""

    def __call__(self, step: int, indices: range) -> Latents:
        """The latents at `indices` of step `step`'s batch."""
        ...
