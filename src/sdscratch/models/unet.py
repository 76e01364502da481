"""The U-Net that predicts the noise (Ronneberger et al. 2015; Ho et al. 2020; Rombach et al. 2022, 3.2).

Its topology is the table that `unet_groups` makes from the configuration. Shapes: n pictures, c channels,
h × w positions, t tokens of context.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.attention import attention
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import Block, UNetConfig, unet_groups
from sdscratch.models.layers import Downsample, ResidualBlock, Upsample, plus, silu

__all__ = ["UNet", "timestep_embedding"]

RESIDUAL_EPS = 1e-5
TRANSFORMER_EPS = 1e-6
OUTER = 1  # groups at either end of the U-Net that run even where the deeper ones are left out


def timestep_embedding(timesteps: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of geometrically spaced frequencies, cosines first (Vaswani et al. 2017, section 3.5).

    Args:
        timesteps: [n] float32, 0 to 999, fractions allowed.

    Returns:
        [n, width] float32.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of x to `context`, or to itself."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.out(attention(self.query(x), self.key(context), self.value(context), self.heads))


class FeedForward(nn.Module):
    """GEGLU, out(a · gelu(b)) with [a, b] = expand(x) (Shazeer 2020, eq. 6; exact GELU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 8 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.contract(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward, each behind a norm and added to x."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = Attention(width, context, heads)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = alike(plus(self.self_attention(normed, normed), x), context)
        x = plus(self.cross_attention(self.norm2(x), context), x)
        return plus(self.feed_forward(self.norm3(x)), x)


class SpatialTransformer(nn.Module):
    """A transformer over the picture's positions (Rombach et al. 2022, appendix E.2.1)."""

    def __init__(self, width: int, context: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, TRANSFORMER_EPS)
        self.project_in = nn.Conv2d(width, width, 1)
        self.block = TransformerBlock(width, context, heads)
        self.project_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.project_in(self.norm(x))
        tokens = self.block(h.flatten(2).transpose(1, 2), context)  # [n, h·w, c]
        return plus(self.project_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:])), alike(x, tokens))


def distinct(x: Tensor, timesteps: Tensor) -> int:
    """How many of a batch's pictures differ: half, where guidance has doubled it, and else all.

    Only on a CPU, where looking is nothing (a GPU would have to be waited for), and only in 16 bits: in
    float32 the last bit of small products depends on where in memory the weights lie, and a baked model
    would no longer give the very picture of its LoRA.
    """
    half, odd = divmod(len(x), 2)
    looks = x.device.type == "cpu" and x.dtype != torch.float32 and not odd
    same = looks and torch.equal(timesteps[:half], timesteps[half:]) and torch.equal(x[:half], x[half:])
    return half if same else len(x)


def alike(x: Tensor, whole: Tensor) -> Tensor:
    """x, repeated to the length of the whole batch where it stands for both halves."""
    return x if len(x) == len(whole) else torch.cat([x, x])


def make_block(block: Block, config: UNetConfig) -> nn.Module:
    """One block of the table as a network."""
    match block.kind:
        case "conv":
            return nn.Conv2d(block.inputs, block.outputs, 3, padding=1)
        case "residual":
            time = 4 * config.channels
            return ResidualBlock(block.inputs, block.outputs, config.norm_groups, RESIDUAL_EPS, time)
        case "transformer":
            return SpatialTransformer(block.outputs, config.context, config.heads, config.norm_groups)
        case "down":
            return Downsample(block.outputs, padding=(1, 1, 1, 1))
        case "up":
            return Upsample(block.outputs)


class UNet(nn.Module):
    """What is the noise (or velocity) in this latent, given the time and the prompt?"""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time1 = nn.Linear(config.channels, 4 * config.channels)
        self.time2 = nn.Linear(4 * config.channels, 4 * config.channels)
        self.down, self.middle, self.up = (
            nn.ModuleList(nn.ModuleList(make_block(block, config) for block in group) for group in groups)
            for groups in unet_groups(config)
        )
        self.norm_out = nn.GroupNorm(config.norm_groups, config.channels, RESIDUAL_EPS)
        self.conv_out = nn.Conv2d(config.channels, config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict; arguments as of `predict`, of which the features are left out."""
        return self.predict(x, timesteps, conditioning)[0]

    def predict(
        self, x: Tensor, timesteps: Tensor, conditioning: Conditioning, deep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict, and tell what came up from the deeper groups.

        Args:
            x: [n, 4, h, w], the noisy latent in variance-preserving scale.
            timesteps: [n] float32, 0 to 999.
            conditioning: with n rows, the encoded prompts among them.
            deep: the deep features of an earlier pass on the same batch: all but the outermost groups are
                then left out (DeepCache; Ma et al. 2023, section 3.2), which is an approximation.

        Returns:
            [n, 4, h, w]: the noise, or the velocity, as the model was trained; and the deep features.
        """
        embedded = timestep_embedding(timesteps, self.config.channels).to(x.dtype)
        time = F.silu(self.time2(F.silu(self.time1(embedded))))  # every residual block begins with this silu

        context = conditioning.context
        if conditioning.concat is not None:
            x = torch.cat([x, conditioning.concat], dim=1)
        # until it meets the context, one copy of each picture is enough
        x = x[: distinct(x, timesteps)]
        skips: list[Tensor] = []
        outermost = len(self.down) if deep is None else OUTER  # as many on the way up
        for group in self.down[:outermost]:
            x = run_group(group, x, time, context)
            skips.append(x)
        for group in self.middle if deep is None else ():
            x = run_group(group, x, time, context)
        for group in self.up[-outermost:]:
            if len(skips) == OUTER:
                x = deep = x if deep is None else deep
            x = torch.cat([x, alike(skips.pop(), x)], dim=1)
            size = skips[-1].shape[2:] if skips else None
            x = run_group(group, x, time, context, size)
        assert deep is not None  # every U-Net has more groups than the outermost
        return self.conv_out(silu(self.norm_out(x))), deep


def run_group(
    group: nn.Module, x: Tensor, time: Tensor, context: Tensor, size: torch.Size | None = None
) -> Tensor:
    """Run one group's blocks, each with what it takes; `size` is that of the skip to be met next."""
    assert isinstance(group, nn.ModuleList)
    for block in group:
        match block:
            case ResidualBlock():
                x = block(x, time[: len(x)])
            case SpatialTransformer():
                x = block(x, context)
            case Upsample():
                x = block(x, size)
            case _:
                x = block(x)
    return x
