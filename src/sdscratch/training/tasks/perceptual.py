"""A perceptual distance without a trained network: the normalised Laplacian pyramid (Laparra et al. 2016).

Eyes see contrast, at every scale, relative to the contrast around it. So each picture is taken apart into
bands of detail, each an octave coarser than the last (Burt & Adelson 1983), and what a band holds at a place
is divided by how much it holds thereabouts. A smooth change of brightness then costs next to nothing, a
blurred edge or a lost texture much: the reverse of what the squared error says, beside which it is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["normalised_pyramid", "pyramid_distance"]

TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt & Adelson 1983, section II, with a = 3/8
LEVELS = 4  # bands; the coarsest sees features of some 16 pixels
# Contrast below which nothing is made larger, in a picture of −1 to 1: Laparra et al. 2016 fitted 0.17 for
# pictures of 0 to 1.
SATURATION = 0.34


def pyramid_distance(output: Tensor, picture: Tensor) -> Tensor:
    """The mean over pictures and bands of |difference|; [n, 3, H, W] in −1 to 1 each.

    The paper takes root mean squares, whose gradient is not finite where pictures agree, and also compares
    what the coarsest band leaves over, which is here the pixels' own losses' business.
    """
    both = zip(normalised_pyramid(output), normalised_pyramid(picture), strict=True)
    return torch.stack([(ours - theirs).abs().mean() for ours, theirs in both]).mean()


def normalised_pyramid(picture: Tensor) -> list[Tensor]:
    """[n, c, H, W] → `LEVELS` bands of detail, finest first, band k at [n, c, H/2ᵏ, W/2ᵏ]."""
    bands = []
    for _ in range(LEVELS):
        coarse = _blur(picture)
        detail = picture - coarse
        bands.append(detail / (SATURATION + _blur(detail.abs())))  # Laparra et al. 2016, eq. 3
        picture = coarse[..., ::2, ::2]
    return bands


def _blur(x: Tensor) -> Tensor:
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    kernel = taps.expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=x.shape[1])
