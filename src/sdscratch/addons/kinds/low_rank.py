"""LoRA (Hu et al. 2021, section 4.1), and LoCon, the same for convolutions (LyCORIS, Yeh et al. 2023).

ΔW = up · down                                 up [out, rank], down [rank, in(, k, k)]
ΔW[o, i] = Σ_ab up[o, a] mid[a, b] down[b, i]  where there is a mid [rank, rank, k, k] (CP decomposition)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes, same, squeezed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LORA"]


def _fits(shapes: Shapes, shape: Shape) -> bool:
    up, down = shapes["up"], shapes["down"]
    rank = down[0] if down else 0
    if rank == 0 or len(shape) < 2 or squeezed(up) != (shape[0], rank):
        return False
    if "mid" in shapes:
        return (
            len(shape) == 4
            and shapes["mid"] == (rank, rank, *shape[2:])
            and squeezed(down) == (rank, shape[1])
        )
    return same(down, (rank, *shape[1:]))


def _delta(operands: Operands, weight: Tensor) -> Tensor:
    up, down = operands["up"].flatten(1), operands["down"].flatten(1)
    if "mid" not in operands:
        return (up @ down).view(weight.shape)
    import torch

    return torch.einsum("oa,abkl,bi->oikl", up, operands["mid"], down)


LORA = Kind(
    "LoRA",
    (frozenset({"up", "down"}),),
    _fits,
    rank=lambda shapes: shapes["down"][0],
    delta=_delta,
    optional=frozenset({"mid"}),
)
