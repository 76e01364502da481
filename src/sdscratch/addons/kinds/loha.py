"""LoHa (Hyeon-Woo et al. 2022, "FedPara", section 2; LyCORIS): the Hadamard product of two low-rank matrices.

    ΔW = (w1_a · w1_b) ⊙ (w2_a · w2_b)          w_a [out, rank], w_b [rank, in · k · k]

or, for convolutions in Tucker's form, with a core t [rank, rank, k, k], w_a [rank, out] and w_b [rank, in]:

    (w1)[o, i] = Σ_ab t[a, b] w_b[b, i] w_a[a, o]

alpha is divided by the rows of w1_b, once (LyCORIS' merge divides twice, its forward pass does not).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes, is_product

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOHA", "fits_tucker", "tucker"]

FACTORS = frozenset(f"hada_w{n}_{side}" for n in (1, 2) for side in "ab")
CORES = frozenset({"hada_t1", "hada_t2"})


def fits_tucker(core: Shape, a: Shape, b: Shape, shape: Shape) -> bool:
    """Whether a core and its two sides make a convolution of that shape."""
    return (
        len(core) == len(shape) == 4
        and 0 not in core
        and core[2:] == shape[2:]
        and a == (core[0], shape[0])
        and b == (core[1], shape[1])
    )


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ_ab core[a, b] · a[a, o] · b[b, i]: a convolution of o outputs and i inputs."""
    import torch

    return torch.einsum("abkl,ao,bi->oikl", core, a, b)


def _fits(shapes: Shapes, shape: Shape) -> bool:
    for n in (1, 2):
        a, b = shapes[f"hada_w{n}_a"], shapes[f"hada_w{n}_b"]
        if f"hada_t{n}" in shapes:
            if not fits_tucker(shapes[f"hada_t{n}"], a, b, shape):
                return False
        elif not is_product(a, b, shape):
            return False
    return True


def _delta(operands: Operands, weight: Tensor) -> Tensor:
    def factor(n: int) -> Tensor:
        a, b = operands[f"hada_w{n}_a"], operands[f"hada_w{n}_b"]
        if f"hada_t{n}" in operands:
            return tucker(operands[f"hada_t{n}"], a, b)
        return (a.flatten(1) @ b.flatten(1)).view(weight.shape)

    return factor(1) * factor(2)


LOHA = Kind(
    "LoHa",
    (FACTORS | CORES, FACTORS),
    _fits,
    rank=lambda shapes: shapes["hada_w1_b"][0],
    delta=_delta,
)
