"""A latent decoded in overlapping tiles: memory for one tile, whatever the picture's size.

An approximation: the decoder normalises over, and attends to, all that it sees, and of a tile it sees less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

__all__ = ["in_tiles"]

OVERLAP = 4  # neighbours share a quarter of their side


def in_tiles(decode: Callable[[Tensor], Tensor], latent: Tensor, side: int) -> Tensor:
    """Decode tiles of a latent, each faded into its neighbours where they overlap.

    Args:
        decode: [1, c, h, w] → [1, 3, f·h, f·w], for any h and w.
        latent: [1, c, h, w]; one that is no larger than a tile is decoded whole.
        side: of a tile, in the latent's positions, at least 4.

    Returns:
        [1, 3, f·h, f·w] float32.
    """
    height, width = latent.shape[2:]
    if max(height, width) <= side:
        return decode(latent).float()
    total = weights = torch.empty(0)
    for top, left in product(starts(height, side), starts(width, side)):
        tile = decode(latent[:, :, top : top + side, left : left + side]).float()
        factor = tile.shape[2] // min(side, height)
        if not total.numel():
            total = tile.new_zeros(1, 3, factor * height, factor * width)
            weights = tile.new_zeros(1, 1, factor * height, factor * width)
        rows, columns = (ramp(length, factor * side // OVERLAP, tile) for length in tile.shape[2:])
        fade = rows[:, None] * columns
        bottom, right = factor * top + tile.shape[2], factor * left + tile.shape[3]
        total[..., factor * top : bottom, factor * left : right] += tile * fade
        weights[..., factor * top : bottom, factor * left : right] += fade
    return total.div_(weights)


def starts(length: int, side: int) -> Iterator[int]:
    """Where tiles begin along one axis; the last ends where the picture does, and may overlap more."""
    step = side - side // OVERLAP
    yield from range(0, max(length - side, 0), step)
    yield max(length - side, 0)


def ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """Weights along one axis: rising over the overlap, one, falling; at a picture's edges it divides out."""
    rise = torch.arange(1, length + 1, dtype=torch.float32, device=like.device) / overlap
    return torch.minimum(rise, rise.flip(0)).clamp(max=1.0)
