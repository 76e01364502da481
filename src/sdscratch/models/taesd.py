"""The tiny autoencoder: latents ↔ pictures at a hundredth of the cost, a little different.

TAESD (Ollin Boer Bohan 2023, github.com/madebyollin/taesd): residual blocks of three convolutions and no
normalisation or attention, all of one width. It learns what a model's own decoder shows (`training.taesd`).

Shapes: n pictures, latents of h × w positions, c channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.config import TinyDecoderConfig

__all__ = ["TinyBlock", "TinyDecoder", "TinyEncoder"]

BOUND = 3.0  # latents rarely go beyond it; what does is drawn in


class TinyBlock(nn.Module):
    """relu(x + conv(relu(conv(relu(conv(x)))))) (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


class TinyDecoder(nn.Module):
    """Blocks, then every position repeated and a convolution without bias: once for each doubling."""

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(TinyBlock(width) for _ in range(count))) for count in config.blocks
        )
        self.up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in config.blocks[:-1])
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[n, c, h, w], as the U-Net sees latents → [n, 3, d·h, d·w], about −1 to 1 (not clamped)."""
        x = F.relu(self.conv_in(BOUND * torch.tanh(latents / BOUND)))
        for level, up in zip(self.levels, self.up, strict=False):  # the last level has no step up
            x = up(F.interpolate(level(x), scale_factor=2.0, mode="nearest"))
        return 2.0 * self.conv_out(self.levels[-1](x)) - 1.0  # it speaks of pictures in 0 to 1


class TinyEncoder(nn.Module):
    """The other way: a convolution without bias that halves, then blocks, once for each halving.

    Args:
        config: as the decoder's, the lowest resolution first.
    """

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(TinyBlock(width) for _ in range(count))) for count in reversed(config.blocks)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False) for _ in config.blocks[:-1]
        )
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """[n, 3, d·h, d·w] in −1 to 1 → [n, c, h, w], as the U-Net sees latents; there is no posterior."""
        x = self.levels[0](self.conv_in((pictures + 1.0) / 2.0))
        for level, down in zip(self.levels[1:], self.down, strict=True):
            x = level(down(x))
        result: Tensor = self.conv_out(x)
        return result
