"""(IA)³ (Liu et al. 2022, section 3.3): outputs or inputs are scaled.

    W' = W ⊙ (1 + s w)              w [out, 1(, 1, 1)], or [in] with on_input (LyCORIS)
    W' = W ⊙ (1 + s (l − 1))        l [out, 1] or [1, in]; of convolutions [1, out or in, 1, 1] (PEFT)

PEFT scales a bias with the outputs, too. Where a convolution has as many outputs as inputs its file does not
say which are scaled: outputs are, as PEFT does unless told otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IA3", "IA3_PEFT", "scaled_bias", "scales_outputs"]


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


def _axis_peft(scales: Shape, shape: Shape) -> int | None:
    """Which side of a weight is scaled: 0 for outputs; None where it is neither."""
    if len(shape) != len(scales) or len(shape) < 2 or not set(scales[2:]) <= {1}:
        return None
    outputs = (1, shape[0]) if len(shape) == 4 else (shape[0], 1)
    if scales[:2] == outputs:
        return 0
    return 1 if scales[:2] == (1, shape[1]) else None


def scales_outputs(scales: Shape, shape: Shape) -> bool:
    """Whether PEFT's ia3_l of that shape scales a weight's outputs, and so its bias."""
    return _axis_peft(scales, shape) == 0


def scaled_bias(operands: Operands, bias: Tensor, strength: float) -> Tensor:
    """A bias whose outputs are scaled."""
    return bias * (1 + strength * (operands["ia3_l"].reshape(bias.shape) - 1))


def _turned_peft(operands: Operands, weight: Tensor, strength: float) -> Tensor:
    scales = operands["ia3_l"]
    axis = _axis_peft(tuple(scales.shape), tuple(weight.shape)) or 0
    return weight * (1 + strength * (_along(scales.flatten(), axis, weight) - 1))


IA3 = Kind("(IA)³", (frozenset({"weight", "on_input"}),), _fits, turned=_turned)
IA3_PEFT = Kind(
    "(IA)³ of PEFT",
    (frozenset({"ia3_l"}),),
    lambda shapes, shape: _axis_peft(shapes["ia3_l"], shape) is not None,
    turned=_turned_peft,
)
