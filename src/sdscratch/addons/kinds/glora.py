"""GLoRA (Chavan et al. 2023, section 3.1, as LyCORIS has it): a LoRA, and a low-rank turn of the weight.

    new    ΔW = W a1 a2 + b1 b2         a1 [in, rank], a2 [rank, in], b1 [out, rank], b2 [rank, in · k · k]
    old    ΔW = W a2 a1 + b2 b1         the same with 1 and 2 exchanged

The shapes tell the layouts apart. In a convolution the turn acts on the input channels (new), or on channels
and positions together (old).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes, is_product, matrix

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GLORA"]

NEW = ("a1", "a2", "b1", "b2")
OLD = ("a2", "a1", "b2", "b1")


def _is(order: tuple[str, ...], shapes: Shapes, shape: Shape, inputs: int) -> bool:
    a, then, b, last = (shapes[name] for name in order)
    ranks = {matrix(a)[-1:], matrix(then)[:1], matrix(b)[-1:], matrix(last)[:1]}
    return len(ranks) == 1 and is_product(a, then, (inputs, inputs)) and is_product(b, last, shape)


def _order(shapes: Shapes, shape: Shape) -> tuple[str, ...] | None:
    """The layout; the old one (as ComfyUI) where rank, inputs and outputs are one number."""
    if len(shape) < 2:
        return None
    if _is(OLD, shapes, shape, matrix(shape)[1]):
        return OLD
    return NEW if _is(NEW, shapes, shape, shape[1]) else None


def _delta(operands: Operands, weight: Tensor) -> Tensor:
    shapes = {name: tuple(operands[name].shape) for name in NEW}
    order = _order(shapes, tuple(weight.shape)) or NEW
    a, then, b, last = (operands[name].flatten(1) for name in order)
    added = (b @ last).view(weight.shape)
    turn = a @ then
    if order is OLD or weight.dim() == 2:
        return added + (weight.flatten(1) @ turn).view(weight.shape)
    import torch

    return added + torch.einsum("oikl,ij->ojkl", weight, turn)


GLORA = Kind(
    "GLoRA",
    (frozenset(NEW),),
    lambda shapes, shape: _order(shapes, shape) is not None,
    rank=lambda shapes: min(shapes["a1"][:2], default=None),
    delta=_delta,
)
