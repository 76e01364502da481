"""What is made faster as a whole: a computation from tensors to tensors, and what it is given."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sdscratch.models.conditioning import Conditioning

__all__ = ["Compute", "Input", "Inputs", "Outputs", "first_line"]

Input = Tensor | Conditioning | None
Inputs = tuple[Input, ...]
Outputs = tuple[Tensor, ...]
Compute = Callable[..., Outputs]


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
