"""CLIP's text encoder (Radford et al. 2021, section 2.4): a prompt's tokens become the U-Net's context.

A GPT-2-like transformer (Radford et al. 2019): normalisation before each block, causal attention. OpenAI's
for Stable Diffusion 1.x, OpenCLIP's (Cherti et al. 2023) for 2.x, one of each for XL.
Shapes: n prompts, t tokens (77), c = width, p = projection.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.attention import DotProductAttention
from sdscratch.models.config import TextEncoderConfig

__all__ = ["TextEncoder"]


def quick_gelu(x: Tensor) -> Tensor:
    """x·σ(1.702x), OpenAI's approximation of GELU (Hendrycks & Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mix = DotProductAttention(heads, causal=True)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """[n, t, c], and where given [n, t] bool, tokens that none sees → [n, t, c]."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        mixed = self.mix(query, key, value) if hidden is None else self._masked(query, key, value, hidden)
        return self.out(mixed)

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.mix.heads, -1)).transpose(1, 2) for x in (query, key, value))
        earlier = torch.ones(2 * (q.shape[2],), dtype=torch.bool, device=q.device).tril()
        seen = earlier & ~hidden[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = CausalAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), hidden)
        return x + self.contract(self.activation(self.expand(self.norm2(x))))


class TextEncoder(nn.Module):
    """Token ids → one vector a token."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        projection = config.projection
        self.projection = nn.Linear(config.width, projection, bias=False) if projection is not None else None

    def forward(
        self,
        ids: Tensor,
        skip: int = 0,
        *,
        embedded: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Encode prompts.

        Args:
            ids: [n, t] int64, start and end token included, padded.
            skip: how many of the last layers to leave out, beside those that the model always does; the
                final norm is applied all the same (diffusers' `clip_skip`; the web UIs count one more).
            embedded: [n, t, c], what stands for the tokens in place of their own embeddings, before
                positions are added (textual inversion: Gal et al. 2022, section 3).
            hidden: [n, t] bool, tokens that attention does not see.

        Returns:
            [n, t, c].
        """
        return self.encode(ids, skip, embedded=embedded, hidden=hidden)[0]

    def encode(
        self,
        ids: Tensor,
        skip: int = 0,
        *,
        embedded: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encode prompts; arguments as of `forward`.

        Returns:
            The context [n, t, c]; and, of models that have one, the pooled vector [n, p]: what the last of
            all layers says at the end token (whose id is the highest), projected.
        """
        x = (self.tokens(ids) if embedded is None else embedded) + self.positions.weight[: ids.shape[1]]
        told = len(self.layers) - self.config.skip - skip
        for layer in self.layers[:told]:
            x = layer(x, hidden)
        context = self.final_norm(x) if self.config.normed else x
        if self.projection is None:
            return context, None
        for layer in self.layers[told:]:
            x = layer(x, hidden)
        ends = self.final_norm(x)[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        return context, self.projection(ends)
