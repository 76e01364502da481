"""What is in a latent, in a moment: pixels by one linear map, fitted to the model itself.

A decoder is far from linear, but a moment of least squares finds the linear map that comes nearest to it:
from a position and its neighbours to the pixels under it. What it is fitted to are pictures of known colours
and the latents that the model's own encoder makes of them, so that there is one for every model. It costs
nothing beside a decoding, and shows what is where, in colours that are a little off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Preview", "fit_preview", "known_pictures"]

PICTURES, SIDE = 24, 12  # known ones, and the latent positions along each of their sides
DISCS = 6  # on each
NEIGHBOURS = 3  # positions along a side that a position's pixels are taken from
CAUTION = 1e-3  # of ridge regression: few pictures are known


class Preview:
    """Latents → pictures.

    Args:
        matrix: [9·c + 1, 3·d²] float32: what the channels of 3 × 3 positions add to the middle one's pixels,
            and what is there without.
        downscale: d, pixels of a position along each side.
    """

    def __init__(self, matrix: Tensor, downscale: int) -> None:
        self.matrix = matrix
        self.downscale = downscale

    def __call__(self, latents: Tensor) -> Tensor:
        """[n, c, h, w], as the U-Net sees latents → [n, 3, d·h, d·w], about −1 to 1."""
        padded = F.pad(latents, (NEIGHBOURS // 2,) * 4, mode="replicate")
        pixels = neighbourhoods(padded) @ self.matrix.to(latents.device)
        return F.pixel_shuffle(pixels.transpose(1, 2).unflatten(2, latents.shape[2:]), self.downscale)


def fit_preview(encode: Callable[[Tensor], Tensor], downscale: int) -> Preview:
    """Fit the map.

    Args:
        encode: one picture [1, 3, H, W] in −1 to 1 → its latent [1, c, h, w], as the U-Net sees it.
        downscale: pixels of a position along each side.
    """
    pictures = known_pictures(SIDE * downscale)
    latents = torch.cat([encode(picture) for picture in pictures.split(1)]).float().cpu()
    inputs = neighbourhoods(latents).flatten(0, 1)
    inner = F.pixel_unshuffle(pictures, downscale)[:, :, 1:-1, 1:-1]  # those with all their neighbours
    outputs = inner.flatten(2).transpose(1, 2).flatten(0, 1)
    products = inputs.T @ inputs
    ridge = CAUTION * products.diagonal().mean() * torch.eye(len(products))
    return Preview(torch.linalg.solve(products + ridge, inputs.T @ outputs), downscale)


def neighbourhoods(latents: Tensor) -> Tensor:
    """[n, c, h, w] → [n, (h − 2)·(w − 2), 9·c + 1]: every inner position with its neighbours, and a one."""
    windows = F.unfold(latents, NEIGHBOURS)
    return torch.cat([windows, torch.ones_like(windows[:, :1])], 1).transpose(1, 2)


def known_pictures(side: int) -> Tensor:
    """[n, 3, side, side] in −1 to 1: discs on colours that flow into each other, the same every time."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def colours(*shape: int) -> Tensor:  # black and white are as frequent as in pictures
        return (random(PICTURES, 3, *shape) * 3.0 - 1.5).clamp(-1.0, 1.0)

    pictures = F.interpolate(colours(3, 3), size=(side, side), mode="bilinear", align_corners=True)
    y, x = torch.meshgrid(*[torch.arange(side) / side] * 2, indexing="ij")
    for _ in range(DISCS):
        left, top, radius = random(3, PICTURES, 1, 1, 1)
        inside = torch.hypot(x - left, y - top) < 0.05 + 0.4 * radius
        pictures = torch.where(inside, colours(1, 1), pictures)
    return pictures
