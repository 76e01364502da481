"""The autoencoder between pictures and latents (Rombach et al. 2022, section 3.1; Kingma & Welling 2014).

Encoder and decoder are two networks, so that a task that needs one loads one. Shapes: n pictures of
H × W pixels, latents of h × w = H/8 × W/8 positions (8: `AutoencoderConfig.downscale`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sdscratch.models.attention import DotProductAttention
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.layers import Downsample, ResidualBlock, Upsample, plus, silu

__all__ = ["Decoder", "Encoder", "Gaussian", "steps"]

EPS = 1e-6


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution over latents, q(z|x) (Kingma & Welling 2014, section 2.1)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std · noise (the reparametrisation, ibid. section 2.4)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """KL(q ‖ N(0, 1)) in nats, one value a picture (ibid., appendix B)."""
        terms = self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)


class PositionAttention(nn.Module):
    """Single-head self-attention over a picture's positions, added to its input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPS)
        self.mix = DotProductAttention(heads=1)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [n, h·w, c]
        mixed = self.mix(self.query(tokens), self.key(tokens), self.value(tokens))
        return plus(self.out(mixed).transpose(1, 2).unflatten(2, x.shape[2:]), x)


class Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next (None at the last level)."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, groups: int, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs if index == 0 else outputs, outputs, groups, EPS) for index in range(blocks)
        )
        self.resample = resample


def steps(levels: nn.ModuleList) -> Iterator[nn.Module]:
    """What to compute in turn. The caller of a whole level would hold its input to the end: 134 MB."""
    for level in cast("Iterable[Level]", levels):
        yield from level.blocks
        if level.resample is not None:
            yield level.resample


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, groups, EPS)
        self.attention = PositionAttention(channels, groups)
        self.block2 = ResidualBlock(channels, channels, groups, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x)))


class Encoder(nn.Module):
    """A picture → the distribution of its latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        groups, latent = config.norm_groups, config.latent_channels
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for index, width in enumerate(widths):
            resample = Downsample(width, padding=(0, 1, 0, 1)) if index < len(widths) - 1 else None
            self.down.append(
                Level(widths[max(index - 1, 0)], width, config.residual_blocks, groups, resample)
            )
        self.middle = Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent, 3, padding=1)
        self.quant = nn.Conv2d(2 * latent, 2 * latent, 1)

    def forward(self, picture: Tensor) -> Gaussian:
        """[n, 3, H, W] in −1 to 1 → the posterior over [n, 4, h, w], before `latent_scale`."""
        x = self.conv_in(picture)
        for step in steps(self.down):
            x = step(x)
        x = self.conv_out(silu(self.norm_out(self.middle(x))))
        mean, log_variance = self.quant(x).chunk(2, dim=1)
        return Gaussian(mean, log_variance.clamp(-30.0, 20.0))


class Decoder(nn.Module):
    """A latent → a picture."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        groups, latent = config.norm_groups, config.latent_channels
        self.quant = nn.Conv2d(latent, latent, 1)
        self.conv_in = nn.Conv2d(latent, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], groups)
        self.up = nn.ModuleList()
        for index, width in enumerate(widths):
            resample = Upsample(width) if index < len(widths) - 1 else None
            self.up.append(
                Level(widths[max(index - 1, 0)], width, config.residual_blocks + 1, groups, resample)
            )
        self.norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """[n, 4, h, w], after division by `latent_scale` → [n, 3, H, W], about −1 to 1 (not clamped)."""
        x = self.middle(self.conv_in(self.quant(latent)))
        for step in steps(self.up):
            x = step(x)
        return self.conv_out(silu(self.norm_out(x)))
