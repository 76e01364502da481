"""LoKr (Edalati et al. 2022, "KronA"; LyCORIS): a Kronecker product of two smaller matrices.

    ΔW = w1 ⊗ w2                                w1 [a, c], w2 [b, d(, k, k)] for W [a·b, c·d(, k, k)]

Each factor is there whole, or as w_a · w_b, the second one also in Tucker's form (t2, `loha.tucker`). alpha
is divided by the rank of the second factor, else of the first; where both are whole, nothing is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes, matrix
from sdscratch.addons.kinds.loha import fits_tucker, tucker

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOKR"]

FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
)


def _product(shapes: Shapes, factor: str) -> Shape | None:
    """The shape of a factor that is there whole, or as two matrices; None where they are none."""
    if factor in shapes:
        return shapes[factor] if len(shapes[factor]) in (2, 4) else None
    a, b = shapes[f"{factor}_a"], shapes[f"{factor}_b"]
    if len(a) != 2 or len(b) not in (2, 4) or a[1] != b[0] or 0 in a:
        return None
    return (a[0], *b[1:])


def _second(shapes: Shapes, shape: Shape) -> Shape | None:
    if "lokr_t2" not in shapes:
        return _product(shapes, "lokr_w2")
    a, b = shapes["lokr_w2_a"], shapes["lokr_w2_b"]
    if len(a) != 2 or len(b) != 2:
        return None
    made = (a[1], b[1], *shape[2:])
    return made if fits_tucker(shapes["lokr_t2"], a, b, made) else None


def _fits(shapes: Shapes, shape: Shape) -> bool:
    one, two = _product(shapes, "lokr_w1"), _second(shapes, shape)
    if one is None or two is None or len(shape) < 2:
        return False
    rows, columns = (left * right for left, right in zip(matrix(one), matrix(two), strict=True))
    kernel = math.prod(shape[2:])
    fits = (rows, columns) == matrix(shape) and matrix(two)[1] % kernel == 0
    return fits and (len(two) == 2 or two[2:] == shape[2:])


def _delta(operands: Operands, weight: Tensor) -> Tensor:
    import torch

    def factor(name: str) -> Tensor:
        if name in operands:
            return operands[name].flatten(1)
        a, b = operands[f"{name}_a"], operands[f"{name}_b"]
        if name == "lokr_w2" and "lokr_t2" in operands:
            return tucker(operands["lokr_t2"], a, b).flatten(1)
        return a @ b.flatten(1)

    # as matrices: a convolution's positions are the innermost of its columns in both
    return torch.kron(factor("lokr_w1"), factor("lokr_w2")).view(weight.shape)


def _rank(shapes: Shapes) -> int | None:
    factors = ("lokr_w2_b", "lokr_w1_b")
    return next((shapes[name][0] for name in factors if shapes.get(name)), None)


LOKR = Kind("LoKr", tuple(one | two for one in FIRST for two in SECOND), _fits, rank=_rank, delta=_delta)
