"""IP-Adapter: a picture as a part of the prompt (Ye et al. 2023).

What an image encoder says of a picture becomes a few tokens, to which every cross-attention of the U-Net
attends apart from the prompt. Keys and values do not change from step to step, so they are made once.
Shapes: n pictures, t tokens, d numbers a token of the prompt.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.attention import DotProductAttention
from sdscratch.models.control import Attended, Residuals
from sdscratch.models.image_prompt_config import ImagePromptConfig

__all__ = ["ImagePrompt", "PromptedByImage"]


class Projection(nn.Module):
    """The classic one: a picture's vector as a few tokens (ibid., section 3.2.1)."""

    def __init__(self, config: ImagePromptConfig) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.project = nn.Linear(config.features, config.tokens * config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, features: Tensor) -> Tensor:
        """[n, features] → [n, t, d]."""
        return self.norm(self.project(features).unflatten(-1, (self.tokens, -1)))


class PatchProjection(nn.Module):
    """Of the full adapter: a token of each patch."""

    def __init__(self, config: ImagePromptConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.features, config.features)
        self.contract = nn.Linear(config.features, config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, features: Tensor) -> Tensor:
        """[n, patches, features] → [n, patches, d]."""
        return self.norm(self.contract(F.gelu(self.expand(features))))


class ResamplerLayer(nn.Module):
    """Queries attend to the patches and to themselves; a feed-forward (Alayrac et al. 2022, figure 5)."""

    def __init__(self, width: int, heads: int, head_width: int, feed_forward: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.norm_patches = nn.LayerNorm(width)
        self.norm_queries = nn.LayerNorm(width)
        self.mix = DotProductAttention(heads)
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feed_forward, bias=False)
        self.contract = nn.Linear(feed_forward, width, bias=False)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """[n, t, c], [n, p, c] → [n, t, c]."""
        normed = self.norm_queries(queries)
        seen = torch.cat([self.norm_patches(patches), normed], dim=1)
        queries = queries + self.out(self.mix(self.query(normed), self.key(seen), self.value(seen)))
        return queries + self.contract(F.gelu(self.expand(self.norm(queries))))


class Resampler(nn.Module):
    """Of the Plus adapter: learned queries gather tokens from all patches (Alayrac et al. 2022, 3.1.1)."""

    def __init__(self, config: ImagePromptConfig) -> None:
        super().__init__()
        width = config.width
        self.queries = nn.Parameter(torch.empty(1, config.tokens, width))
        self.project_in = nn.Linear(config.features, width)
        self.layers = nn.ModuleList(
            ResamplerLayer(width, config.heads, config.head_width, config.feed_forward)
            for _ in range(config.depth)
        )
        self.project_out = nn.Linear(width, config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, features: Tensor) -> Tensor:
        """[n, patches, features] → [n, t, d]."""
        patches, queries = self.project_in(features), self.queries.expand(len(features), -1, -1)
        for layer in self.layers:
            queries = layer(queries, patches)
        return self.norm(self.project_out(queries))


PROJECTIONS: dict[str, type[nn.Module]] = {
    "classic": Projection,
    "full": PatchProjection,
    "plus": Resampler,
}


class ImagePrompt(nn.Module):
    """A picture's features → what each cross-attention of the U-Net attends to."""

    def __init__(self, config: ImagePromptConfig) -> None:
        super().__init__()
        self.config = config
        self.project = PROJECTIONS[config.kind](config)
        self.keys, self.values = (
            nn.ModuleList(nn.Linear(config.context, width, bias=False) for width in config.widths)
            for _ in range(2)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """The keys, then the values, of all cross-attentions: way down, way up, middle.

        Args:
            features: [n, features] of the classic adapter, [n, patches, features] of the others.

        Returns:
            Twice one [n, t, width] each.
        """
        tokens = self.project(features)
        return tuple(layer(tokens) for layers in (self.keys, self.values) for layer in layers)


@dataclass(frozen=True, eq=False)
class PromptedByImage:
    """A picture in the prompt: a `control.Control`.

    Args:
        keys: one [1|n, t, width] a cross-attention.
        values: the same.
        weight: [1|n].
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    weight: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Keys, values, weight."""
        return *self.keys, *self.values, self.weight

    @property
    def network(self) -> Hashable:
        """Nothing computes any more; pictures of as many tokens are alike."""
        return PromptedByImage, self.keys[0].shape[1]

    def with_tensors(self, tensors: Sequence[Tensor]) -> PromptedByImage:
        """The same with another picture and weight."""
        count = len(self.keys)
        return replace(self, keys=tuple(tensors[:count]), values=tuple(tensors[count:-1]), weight=tensors[-1])

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """As of `control.Control`."""
        return Residuals(attended=(Attended(self.keys, self.values, self.weight),))
