"""ControlNet: a copy of the U-Net's way down that reads a hint, and adds to the skips (Zhang et al. 2023).

Shapes: n pictures, c channels, h × w latent positions, H × W pixels, t tokens of d.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.config import ControlNetConfig, unet_groups
from sdscratch.models.control import Residuals
from sdscratch.models.layers import silu
from sdscratch.models.unet import make_block, run_group, timestep_embedding

__all__ = ["ControlNet", "HintEncoder", "HintedControlNet", "guess_scales", "soft_scales"]


class HintEncoder(nn.Module):
    """A picture's features at the latent's size: small convolutions, each halving behind one that does not.

    For Stable Diffusion's eight pixels a position: 8 convolutions of 16, 16, 32, 32, 96, 96, 256 and 320
    channels (Zhang et al. 2023, section 3.3, speak of four; the published networks have these).
    """

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        first, *_, last = config.hint_widths
        convs = [nn.Conv2d(config.hint_channels, first, 3, padding=1)]
        for inputs, outputs in pairwise(config.hint_widths):
            convs.append(nn.Conv2d(inputs, inputs, 3, padding=1))
            convs.append(nn.Conv2d(inputs, outputs, 3, padding=1, stride=2))
        convs.append(nn.Conv2d(last, config.unet.channels, 3, padding=1))
        self.convs = nn.ModuleList(convs)

    def forward(self, hint: Tensor) -> Tensor:
        """[n, 3, H, W] in 0 to 1 → [n, c, h, w]."""
        *inner, last = self.convs
        for conv in inner:
            hint = silu(conv(hint))
        features: Tensor = last(hint)
        return features


class ControlNet(nn.Module):
    """What does this hint add to each skip of the U-Net?

    Every output passes a 1×1 convolution that was zero before training (ibid., section 3.1), so that an
    untrained ControlNet changes nothing.
    """

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        self.config = config
        unet = config.unet
        self.time1 = nn.Linear(unet.channels, 4 * unet.channels)
        self.time2 = nn.Linear(4 * unet.channels, 4 * unet.channels)
        down, middle, _ = unet_groups(unet)
        self.down, self.middle = (
            nn.ModuleList(nn.ModuleList(make_block(block, unet) for block in group) for group in groups)
            for groups in (down, middle)
        )
        widths = [group[-1].outputs for group in down]
        self.hint = HintEncoder(config)
        self.zero = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.zero_middle = nn.Conv2d(widths[-1], widths[-1], 1)

    def encode_hint(self, hint: Tensor) -> Tensor:
        """The hint's features, which no step changes: [n, 3, H, W] in 0 to 1, RGB → [n, c, h, w]."""
        return self.hint(hint.flip(1) if self.config.bgr else hint)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, features: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """What is added to the skips, in the order of the way down, and to the middle (ibid., eq. 2 to 4).

        Args:
            x: [n, c, h, w], the noisy latent as the U-Net has it.
            timesteps: [n] float32, 0 to 999.
            context: [n, t, d], the encoded prompt.
            features: [1|n, c, h, w], what `encode_hint` gave.
        """
        sinusoids = timestep_embedding(timesteps, self.config.unet.channels).to(x.dtype)
        time = F.silu(self.time2(F.silu(self.time1(sinusoids))))
        skips: list[Tensor] = []
        for number, (group, zero) in enumerate(zip(self.down, self.zero, strict=True)):
            x = run_group(group, x, time, context)
            if number == 0:
                x = x + features
            skips.append(zero(x))
        for group in self.middle:
            x = run_group(group, x, time, context)
        return tuple(skips), self.zero_middle(x)


def soft_scales(count: int) -> tuple[float, ...]:
    """The web UIs' soft weights: full in the middle, 0.825 times as much at each skip before it.

    Args:
        count: of the outputs, skips and middle; SD 1.x: 13.
    """
    return tuple(0.825 ** (count - 1 - index) for index in range(count))


def guess_scales(count: int) -> tuple[float, ...]:
    """diffusers' weights in guess mode: from 0.1 at the first skip to 1 in the middle, evenly in log."""
    return tuple(10.0 ** (index / (count - 1) - 1.0) for index in range(count))


@dataclass(frozen=True, eq=False)
class HintedControlNet:
    """A ControlNet with its hint: a `control.Control`.

    Args:
        net: what computes.
        features: [1|n, c, h, w], its hint, encoded.
        weight: [1|n].
        scales: of the outputs, the middle's last; () leaves all alone.
    """

    net: ControlNet
    features: Tensor
    weight: Tensor
    scales: tuple[float, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The encoded hint, and the weight."""
        return self.features, self.weight

    @property
    def network(self) -> Hashable:
        """What computes, and how its outputs are weighed."""
        return self.net, self.scales

    def with_tensors(self, tensors: Sequence[Tensor]) -> HintedControlNet:
        """The same with another hint and weight."""
        features, weight = tensors
        return replace(self, features=features, weight=weight)

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """As of `control.Control`."""
        skips, middle = self.net(x, timesteps, context, self.features)
        scales = self.scales or (1.0,) * (len(skips) + 1)
        weight = self.weight.view(-1, 1, 1, 1)
        outputs = [output * (weight * scale) for output, scale in zip((*skips, middle), scales, strict=True)]
        if self.net.config.pooled:
            outputs = [output.mean((2, 3), keepdim=True) for output in outputs]
        return Residuals(tuple(outputs[:-1]), outputs[-1])
