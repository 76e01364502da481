"""The U-Net that predicts the noise (Ronneberger et al. 2015; Ho et al. 2020; Rombach et al. 2022, 3.2).

Its topology is the table that `unet_groups` makes from the configuration. Shapes: n pictures, c channels,
h × w positions, t tokens of context.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.attention import DotProductAttention
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import Block, UNetConfig, unet_groups
from sdscratch.models.control import Context, SteeredContext
from sdscratch.models.layers import Downsample, ResidualBlock, Upsample, plus, silu

__all__ = [
    "FeedForward",
    "SpatialTransformer",
    "TransformerBlock",
    "UNet",
    "guidance_embedding",
    "timestep_embedding",
]

RESIDUAL_EPS = 1e-5
TRANSFORMER_EPS = 1e-6


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


def guidance_embedding(scale: float, width: int, max_period: float = 10_000.0) -> Tensor:
    """The guidance scale as a model distilled under it is told it (Luo et al. 2023, section 4.2).

    Sinusoids of 1000·w, sines first and the last frequency exactly 1/max_period (both unlike the timestep's),
    of w = s − 1, for a scale counted as users do: without guidance w is 0.

    Args:
        scale: s.

    Returns:
        [1, width] float32.
    """
    half = width // 2
    # angles of thousands: rounded step by step as the reference rounds them, or its last digits are others
    step = torch.tensor(max_period).log() / max(half - 1, 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    angles = torch.tensor([[scale - 1.0]]) * 1000.0 * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


class Attention(nn.Module):
    """Multi-head attention of x to `context`, or to itself."""

    number = 0  # of the U-Net's cross-attentions: way down, way up, middle

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.mix = DotProductAttention(heads)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if isinstance(context, SteeredContext):
            return self.out(self.decoupled(self.query(x), context))
        return self.out(self.mix(self.query(x), self.key(context), self.value(context)))

    def decoupled(self, query: Tensor, context: SteeredContext) -> Tensor:
        """Attention to the prompt, plus attention to what stands beside it (Ye et al. 2023, eq. 5)."""
        mixed = self.mix(query, self.key(context.text), self.value(context.text))
        for each in context.attended:
            key, value = (given[self.number].expand(len(query), -1, -1) for given in (each.keys, each.values))
            mixed = mixed + each.weight.view(-1, 1, 1) * self.mix(query, key, value)
        return mixed


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

    def forward(self, x: Tensor, context: Context) -> Tensor:
        normed = self.norm1(x)
        x = plus(self.self_attention(normed, normed), x)
        x = plus(self.cross_attention(self.norm2(x), context), x)
        return plus(self.feed_forward(self.norm3(x)), x)


class SpatialTransformer(nn.Module):
    """A transformer over the picture's positions (Rombach et al. 2022, appendix E.2.1).

    Args:
        depth: how many blocks.
        linear: whether it is entered and left by matrices, instead of by 1×1 convolutions.
    """

    def __init__(
        self, width: int, context: int, heads: int, groups: int, depth: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, width, TRANSFORMER_EPS)
        self.project_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.names = [f"block{number or ''}" for number in range(depth)]  # block, block1, block2, …
        for name in self.names:
            self.add_module(name, TransformerBlock(width, context, heads))
        self.project_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in order."""
        return [self.get_submodule(name) for name in self.names]

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = self.enter(x)
        for block in self.blocks:
            tokens = block(tokens, context)
        return plus(self.leave(tokens, x.shape[2:]), x)

    def enter(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → tokens [n, h·w, c]."""
        x = self.norm(x)
        if self.linear:
            return self.project_in(x.flatten(2).transpose(1, 2))
        return self.project_in(x).flatten(2).transpose(1, 2)

    def leave(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """The way back, before x is added."""
        if self.linear:
            return self.project_out(tokens).transpose(1, 2).unflatten(2, size)
        return self.project_out(tokens.transpose(1, 2).unflatten(2, size))


def make_block(block: Block, config: UNetConfig) -> nn.Module:
    """One block of the table as a network."""
    match block.kind:
        case "conv":
            return nn.Conv2d(block.inputs, block.outputs, 3, padding=1)
        case "residual":
            time = 4 * config.channels
            return ResidualBlock(block.inputs, block.outputs, config.norm_groups, RESIDUAL_EPS, time)
        case "transformer":
            return SpatialTransformer(
                block.outputs,
                config.context,
                config.heads_at(block.level),
                config.norm_groups,
                config.depth_at(block.level),
                config.projection == "linear",
            )
        case "down":
            return Downsample(block.outputs, padding=(1, 1, 1, 1))
        case "up":
            return Upsample(block.outputs)


class UNet(nn.Module):
    """What is the noise (or velocity) in this latent, given the time and the prompt?"""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        time = 4 * config.channels
        self.time1 = nn.Linear(config.channels, time)
        self.time2 = nn.Linear(time, time)
        if config.guidance is not None:
            self.guidance = nn.Linear(config.guidance, config.channels, bias=False)
        if config.pooled is not None:
            self.added1 = nn.Linear(config.pooled + config.sizes * config.size_width, time)
            self.added2 = nn.Linear(time, time)
        self.down, self.middle, self.up = (
            nn.ModuleList(nn.ModuleList(make_block(block, config) for block in group) for group in groups)
            for groups in unet_groups(config)
        )
        for number, attention in enumerate(self.cross_attentions()):
            attention.number = number
        self.norm_out = nn.GroupNorm(config.norm_groups, config.channels, RESIDUAL_EPS)
        self.conv_out = nn.Conv2d(config.channels, config.out_channels, 3, padding=1)
        # the groups that end a level on the way down, before what halves it, and which level that is
        self.level_ends = {
            level * (config.residual_blocks + 1) + config.residual_blocks: level
            for level in range(len(config.multipliers))
        }

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict.

        Args:
            x: [n, 4, h, w], the noisy latent in variance-preserving scale.
            timesteps: [n] float32, 0 to 999.
            conditioning: with n rows, the encoded prompts among them.

        Returns:
            [n, 4, h, w]: the noise, or the velocity, as the model was trained.
        """
        time, added = self.embed(timesteps, conditioning, x.dtype), conditioning.residuals(x, timesteps)
        context = added.onto_context(conditioning.context)
        x = with_channels(x, conditioning.concat)
        skips: list[Tensor] = []
        for number, group in enumerate(self.down):
            x = added.onto_level(run_group(group, x, time, context), self.level_ends.get(number))
            skips.append(x)
        for group in self.middle:
            x = run_group(group, x, time, context)
        x = added.onto_middle(x)
        for group in self.up:
            x = torch.cat([x, added.onto_skip(skips.pop(), len(skips))], dim=1)
            x = run_group(group, x, time, context, skips[-1].shape[2:] if skips else None)
        return self.conv_out(silu(self.norm_out(x)))

    def cross_attentions(self) -> list[Attention]:
        """Every attention to the prompt, in the order of IP-Adapter's files: way down, way up, middle."""
        return [
            module.cross_attention
            for groups in (self.down, self.up, self.middle)
            for module in groups.modules()
            if isinstance(module, TransformerBlock)
        ]

    def embed(self, timesteps: Tensor, conditioning: Conditioning, dtype: torch.dtype) -> Tensor:
        """The time, and what is added to it, as every residual block takes it: [n, 4·channels]."""
        sinusoids = timestep_embedding(timesteps, self.config.channels).to(dtype)
        if self.config.guidance is not None and conditioning.guidance is not None:
            sinusoids = sinusoids + self.guidance(conditioning.guidance)
        time = self.time2(F.silu(self.time1(sinusoids)))
        if self.config.pooled is not None:  # Podell et al. 2023, section 2.2
            pooled, sizes = conditioning.pooled, conditioning.sizes
            if pooled is None or sizes is None:
                raise ValueError("this U-Net is told a pooled prompt and the picture's sizes, and got none")
            told = timestep_embedding(sizes.flatten(), self.config.size_width).to(dtype)
            told = torch.cat([pooled, told.view(len(sizes), -1)], dim=1)
            time = time + self.added2(F.silu(self.added1(told)))
        return F.silu(time)  # every residual block begins with this silu


def with_channels(x: Tensor, others: Tensor | None) -> Tensor:
    """The latent with the channels that stand beside it."""
    return x if others is None else torch.cat([x, others], dim=1)


def run_group(
    group: nn.Module, x: Tensor, time: Tensor, context: Context, size: torch.Size | None = None
) -> Tensor:
    """Run one group's blocks, each with what it takes; `size` is that of the skip to be met next."""
    assert isinstance(group, nn.ModuleList)
    for block in group:
        match block:
            case ResidualBlock():
                x = block(x, time)
            case SpatialTransformer():
                x = block(x, context)
            case Upsample():
                x = block(x, size)
            case _:
                x = block(x)
    return x
