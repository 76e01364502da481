"""All kinds of LoRA, and a weight changed by one. torch is not imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdscratch.addons.kinds.dora import LENGTHS, fits_dora, with_lengths
from sdscratch.addons.kinds.full import BIASES, FULL, NORM, SET
from sdscratch.addons.kinds.glora import GLORA
from sdscratch.addons.kinds.ia3 import IA3, IA3_PEFT, scaled_bias, scales_outputs
from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes
from sdscratch.addons.kinds.loha import LOHA
from sdscratch.addons.kinds.lokr import LOKR
from sdscratch.addons.kinds.low_rank import LORA
from sdscratch.addons.kinds.oft import BOFT, OFT

if TYPE_CHECKING:
    from collections.abc import Set

    from torch import Tensor

__all__ = ["KINDS", "bias_changed", "changed", "fits", "kinds_of", "lacking", "scales_bias"]

KINDS = (LORA, LOHA, LOKR, GLORA, OFT, BOFT, IA3, IA3_PEFT, FULL, NORM, SET)


def kinds_of(shapes: Shapes) -> list[Kind]:
    """The kinds of which there is at least one tensor; OFT and BOFT are told apart by their dimensions."""
    found = [kind for kind in KINDS if kind.roles & shapes.keys()]
    if OFT in found:
        found.remove(OFT if len(shapes.get("oft_blocks", ())) == 4 else BOFT)
    return found


def lacking(kind: Kind, roles: Set[str]) -> frozenset[str]:
    """What is missing of the most complete form, or is over; nothing where one is whole."""
    present = kind.roles & roles - kind.optional
    return min((form ^ present for form in kind.forms), key=len)


def fits(kind: Kind, shapes: Shapes, shape: Shape) -> bool:
    """Whether the tensors make, or change, a weight of that shape; they are all there (`lacking`)."""
    lengths = any(role in shapes for role in LENGTHS)
    return kind.fits(shapes, shape) and fits_dora(shapes, shape) and not (lengths and kind.delta is None)


def changed(kind: Kind, operands: Operands, weight: Tensor, strength: float) -> Tensor:
    """A weight as an add-on of this kind makes it, at a strength that is not 0.

    Raises:
        ValueError: values that do not fit; says which.
    """
    if kind.turned is not None:
        return kind.turned(operands, weight, strength)
    assert kind.delta is not None
    role = next((role for role in LENGTHS if role in operands), None)
    if role is not None:
        direction = weight + operands.scale * kind.delta(operands, weight)
        return with_lengths(role, operands[role], direction, strength)
    if kind is LORA and "mid" not in operands:  # the commonest, without the difference in memory
        up, down = operands["up"].flatten(1), operands["down"].flatten(1)
        return weight.flatten(1).addmm(up, down, alpha=strength * operands.scale).view(weight.shape)
    return weight.add(kind.delta(operands, weight), alpha=strength * operands.scale)


def scales_bias(kind: Kind, shapes: Shapes, shape: Shape) -> bool:
    """Whether what changes a weight of that shape changes its bias as well."""
    return kind is IA3_PEFT and scales_outputs(shapes["ia3_l"], shape)


def bias_changed(operands: Operands, bias: Tensor, strength: float) -> Tensor:
    """A bias with what an add-on does to it."""
    if "ia3_l" in operands:
        bias = scaled_bias(operands, bias, strength)
    for role in BIASES:
        if role in operands:
            bias = bias.add(operands[role].view(bias.shape), alpha=strength)
    return bias
