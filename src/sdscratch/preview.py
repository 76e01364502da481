"""What is in a latent, in a moment: its positions as colours, by a linear map fitted to the model itself.

A position of a latent is nearly a linear function of the colour under it. The map is found by least squares
from pictures of known colours and what the model's own encoder makes of them, so that it fits every model. It
costs nothing beside a decoding, and shows colours and composition: a picture an eighth the size, enlarged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Preview", "fit_preview", "known_pictures"]

PICTURES = 12
SIDE = 8  # latent positions along each side of a known picture


class Preview:
    """Latents → small pictures.

    Args:
        matrix: [c + 1, 3] float32: what each channel adds to red, green and blue, and what is there without.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, latents: Tensor, downscale: int) -> Tensor:
        """[n, c, h, w], as the U-Net sees latents → [n, 3, H, W], about −1 to 1, smoothly enlarged."""
        matrix = self.matrix.to(latents.device)
        weights, bias = matrix[:-1], matrix[-1]
        small = torch.einsum("nchw,cd->ndhw", latents, weights) + bias[:, None, None]
        return F.interpolate(small, scale_factor=downscale, mode="bicubic")


def fit_preview(encode: Callable[[Tensor], Tensor], downscale: int) -> Preview:
    """Fit the map.

    Args:
        encode: one picture [1, 3, H, W] in −1 to 1 → its latent [1, c, h, w], as the U-Net sees it.
        downscale: pixels of a position along each side.
    """
    latents, colours = [], []
    for colour in known_pictures().split(1):
        latent = encode(F.interpolate(colour, scale_factor=downscale, mode="nearest")).float().cpu()
        ones = torch.ones_like(latent[:, :1])
        latents.append(torch.cat([latent, ones], 1).flatten(2)[0].T)  # [h·w, c + 1]
        colours.append(colour.flatten(2)[0].T)  # [h·w, 3]
    return Preview(torch.linalg.lstsq(torch.cat(latents), torch.cat(colours)).solution)


def known_pictures() -> Tensor:
    """[n, 3, h, w] in −1 to 1: random colours that flow into each other, the same every time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(PICTURES, 3, 3, 3, generator=generator) * 2.0 - 1.0
    return F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
