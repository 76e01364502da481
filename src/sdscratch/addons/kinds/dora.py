"""DoRA (Liu et al. 2024, section 3.2): direction and length of a weight apart, upon any kind that adds.

With V = W + ΔW, ΔW in full, and m the lengths that were learnt,

    W' = V ⊙ (1 + s (m / ‖V‖ − 1))              at s = 1: m ⊙ V / ‖V‖

as LyCORIS has it. m [out, 1] counts a row's length, m [1, in] a column's (with a convolution's positions).
What PEFT calls lora_magnitude_vector counts rows always, in whatever shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Shape, Shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LENGTHS", "fits_dora", "with_lengths"]

LENGTHS = ("dora_scale", "magnitude")  # roles: LyCORIS', PEFT's


def _axis(role: str, lengths: Shape, shape: Shape) -> int | None:
    """Which of the weight's sides has a length each; None where it cannot be."""
    count = math.prod(lengths)
    if max(lengths, default=0) != count or len(shape) < 2:
        return None
    if count == shape[0] and (role == "magnitude" or len(lengths) < 2 or lengths[0] == count):
        return 0
    return 1 if role == "dora_scale" and lengths[:2] == (1, shape[1]) else None


def fits_dora(shapes: Shapes, shape: Shape) -> bool:
    """Whether there are no lengths, or they fit a weight of that shape."""
    return all(_axis(role, shapes[role], shape) is not None for role in LENGTHS if role in shapes)


def with_lengths(role: str, lengths: Tensor, direction: Tensor, strength: float) -> Tensor:
    """V ⊙ (1 + s (m / ‖V‖ − 1))."""
    axis = _axis(role, tuple(lengths.shape), tuple(direction.shape)) or 0
    others = [side for side in range(direction.dim()) if side != axis]
    norm = direction.square().sum(others, keepdim=True).sqrt().clamp_min(1e-12)  # zeros have no direction
    return direction * (1 + strength * (lengths.reshape(norm.shape) / norm - 1))
