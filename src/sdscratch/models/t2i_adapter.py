"""T2I-Adapters: features of a hint, added to each level of the U-Net's way down (Mou et al. 2023).

They see neither the noise nor the time, and so run once a picture. Shapes: n pictures, c channels, H × W
pixels, h × w positions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.config import AdapterConfig
from sdscratch.models.control import Residuals

__all__ = ["SOFT_SCALES", "Adapter", "HintedAdapter"]

SOFT_SCALES = (0.25, 0.62, 0.825, 1.0)  # the web UIs' soft weights, by level


class AdapterBlock(nn.Module):
    """x + conv(relu(conv(x))) (ibid., section 3.2)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → the same."""
        return x + self.conv2(F.relu(self.conv1(x)))


class AdapterLevel(nn.Module):
    """The blocks of one level; behind the first, positions are averaged two by two.

    Args:
        inputs: channels of the level before.
        outputs: channels of the U-Net's level.
        light: blocks of a quarter of the width, between 1×1 convolutions.
    """

    def __init__(self, inputs: int, outputs: int, config: AdapterConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        inner = outputs // 4 if config.light else outputs
        narrows = config.light or inputs != outputs
        self.conv_in = nn.Conv2d(inputs, inner, 1) if narrows else None
        self.blocks = nn.ModuleList(AdapterBlock(inner, config.kernel) for _ in range(config.blocks))
        self.conv_out = nn.Conv2d(inner, outputs, 1) if config.light else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ⌈h/2⌉, ⌈w/2⌉]; of the first level [n, outputs, h, w]."""
        if not self.first:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.conv_in is not None:
            x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        return x if self.conv_out is None else self.conv_out(x)


class Adapter(nn.Module):
    """A hint's features at every level of the U-Net."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        # a full one enters the first level's width by a convolution of its own, a light one in its levels
        self.conv_in = None if config.light else nn.Conv2d(config.inputs, first, 3, padding=1)
        before = (config.inputs if config.light else first, *config.channels)
        self.levels = nn.ModuleList(
            AdapterLevel(inputs, outputs, config, first=number == 0)
            for number, (inputs, outputs) in enumerate(zip(before, config.channels, strict=False))
        )

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """[n, hint_channels, H, W] in 0 to 1 → one [n, channels, h, w] a level, half as large each."""
        x = F.pixel_unshuffle(hint, self.config.downscale)
        if self.conv_in is not None:
            x = self.conv_in(x)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return tuple(features)


@dataclass(frozen=True, eq=False)
class HintedAdapter:
    """An adapter's features with their weights already in them: a `control.Control`.

    Args:
        features: one [1|n, c, h, w] a level.
    """

    features: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The features."""
        return self.features

    @property
    def network(self) -> Hashable:
        """Nothing computes any more."""
        return HintedAdapter

    def with_tensors(self, tensors: Sequence[Tensor]) -> HintedAdapter:
        """The same with other features."""
        return HintedAdapter(tuple(tensors))

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """As of `control.Control`."""
        return Residuals(levels=self.features)
