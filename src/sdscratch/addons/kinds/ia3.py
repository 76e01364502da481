"""(IA)³ (Liu et al. 2022, section 3.3): outputs or inputs are scaled.

W' = W ⊙ (1 + s w)                          w [out, 1(, 1, 1)], or [in] with on_input (LyCORIS)
W' = W ⊙ (1 + s (l − 1))                    l [out, 1] or [1, in] (PEFT's ia3_l)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IA3", "IA3_PEFT"]


def _fits(shapes: Shapes, shape: Shape) -> bool:
    scales = shapes["weight"]
    whole = math.prod(scales)
    one_side = max(scales, default=0) == whole
    return len(shape) > 1 and one_side and whole in shape[:2] and math.prod(shapes["on_input"]) == 1


def _turned(operands: Operands, weight: Tensor, strength: float) -> Tensor:
    axis = 1 if bool(operands["on_input"]) else 0
    scales = operands["weight"].flatten()
    if len(scales) != weight.shape[axis]:
        raise ValueError(f"it scales {len(scales)} {'inputs' if axis else 'outputs'} of {weight.shape[axis]}")
    return weight * (1 + strength * _along(scales, axis, weight))


def _along(scales: Tensor, axis: int, weight: Tensor) -> Tensor:
    return scales.reshape([-1 if side == axis else 1 for side in range(weight.dim())])


def _fits_peft(shapes: Shapes, shape: Shape) -> bool:
    scales = shapes["ia3_l"]
    sides = {(shape[0], 1), (1, shape[1])} if len(shape) > 1 else set()
    return scales[:2] in sides and set(scales[2:]) <= {1}


def _turned_peft(operands: Operands, weight: Tensor, strength: float) -> Tensor:
    scales = operands["ia3_l"]
    axis = 1 if scales.shape[0] == 1 and weight.shape[0] != 1 else 0
    return weight * (1 + strength * (_along(scales.flatten(), axis, weight) - 1))


IA3 = Kind("(IA)³", (frozenset({"weight", "on_input"}),), _fits, turned=_turned)
IA3_PEFT = Kind("(IA)³ of PEFT", (frozenset({"ia3_l"}),), _fits_peft, turned=_turned_peft)
