"""OFT (Qiu et al. 2023, section 3) and BOFT (Liu et al. 2024, section 4): the outputs are rotated.

Blocks B make skew-symmetric Q = B − Bᵀ and rotations R = (I + Q)(I − Q)⁻¹ (Cayley). As LyCORIS has them:

    OFT     W' = W + s (Rᵀ W − W)               blocks [k, n, n], of n outputs each
    BOFT    W' = R_m … R_1 W                    blocks [m, k, n, n]; stage i pairs outputs that lie
                                                2^i · n/2 apart; each R is s R + (1 − s) I
    both    rows scaled at the end              rescale [out, 1]

alpha, times the number of outputs, bounds the norm of all Q together; 0 does not bound it (LyCORIS, ComfyUI).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdscratch.addons.kinds.kind import Kind, Operands, Shape, Shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BOFT", "OFT"]

ROLES, OPTIONAL = (frozenset({"oft_blocks"}),), frozenset({"rescale"})


def _fits_rescale(shapes: Shapes, shape: Shape) -> bool:
    rescale = shapes.get("rescale", (shape[0],))
    return rescale[:1] == shape[:1] and set(rescale[1:]) <= {1}


def _fits_oft(shapes: Shapes, shape: Shape) -> bool:
    blocks = shapes["oft_blocks"]
    fits = (
        len(blocks) == 3 and len(shape) > 1 and blocks[1] == blocks[2] and blocks[0] * blocks[1] == shape[0]
    )
    return fits and _fits_rescale(shapes, shape)


def _fits_boft(shapes: Shapes, shape: Shape) -> bool:
    blocks = shapes["oft_blocks"]
    if len(blocks) != 4 or len(shape) < 2 or blocks[2] != blocks[3] or blocks[1] * blocks[2] != shape[0]:
        return False
    stages, size = blocks[0], blocks[2]
    paired = size % 2 == 0 and stages < 32 and shape[0] % (size << max(stages - 1, 0)) == 0
    return paired and _fits_rescale(shapes, shape)


def _rotations(operands: Operands, outputs: int) -> Tensor:
    """Cayley's R of every block."""
    import torch

    blocks = operands["oft_blocks"]
    skew = blocks - blocks.mT
    bound = (operands.alpha or 0.0) * outputs
    if bound > 0:
        norm = skew.norm() + 1e-8
        if norm > bound:
            skew = skew * (bound / norm)
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    rotations: Tensor = torch.linalg.solve(identity - skew, identity + skew, left=False)  # X (I − Q) = I + Q
    return rotations


def _rescaled(operands: Operands, weight: Tensor) -> Tensor:
    if "rescale" not in operands:
        return weight
    return weight * operands["rescale"].reshape(-1, *(1,) * (weight.dim() - 1))


def _turned_oft(operands: Operands, weight: Tensor, strength: float) -> Tensor:
    rotations = _rotations(operands, weight.shape[0])
    rows = weight.reshape(*rotations.shape[:2], -1)
    turned = (rotations.mT @ rows).view(weight.shape)
    return _rescaled(operands, weight.lerp(turned, strength))


def _turned_boft(operands: Operands, weight: Tensor, strength: float) -> Tensor:
    import torch

    rotations = _rotations(operands, weight.shape[0])
    size = rotations.shape[-1]
    rotations = torch.eye(size, dtype=weight.dtype).lerp(rotations, strength)
    turned = weight.flatten(1)
    for stage, rotation in enumerate(rotations):
        apart = (size // 2) << stage
        # the two of every pair side by side: [groups, 2, apart] → [groups, apart, 2]
        paired = turned.unflatten(0, (-1, 2, apart)).transpose(1, 2)
        blocks = rotation @ paired.reshape(*rotation.shape[:2], -1)
        turned = blocks.reshape(paired.shape).transpose(1, 2).reshape(turned.shape)
    return _rescaled(operands, turned.view(weight.shape))


OFT = Kind("OFT", ROLES, _fits_oft, turned=_turned_oft, optional=OPTIONAL)
BOFT = Kind("BOFT", ROLES, _fits_boft, turned=_turned_boft, optional=OPTIONAL)
