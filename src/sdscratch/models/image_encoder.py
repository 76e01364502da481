"""CLIP's image encoder (Radford et al. 2021, section 2.4; Dosovitskiy et al. 2021): picture → vectors.

Shapes: n pictures, p patches a side, c channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdscratch.models.attention import DotProductAttention
from sdscratch.models.clip import ACTIVATIONS
from sdscratch.models.image_prompt_config import ImageEncoderConfig

__all__ = ["MEAN", "SPREAD", "ImageEncoder", "normalised"]

# of the pictures that CLIP was trained on, by channel
MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)


def normalised(pixels: Tensor) -> Tensor:
    """[n, 3, h, w] in 0 to 1 → the same with each channel's mean and spread taken out."""
    mean, spread = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, SPREAD))
    return (pixels - mean) / spread


class VisionLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); every patch sees every other."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.mix = DotProductAttention(config.heads)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.out(self.mix(self.query(normed), self.key(normed), self.value(normed)))
        return x + self.contract(self.activation(self.expand(self.norm2(x))))


class ImageEncoder(nn.Module):
    """A picture's vector, or one of each patch."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Parameter(torch.empty(config.width))  # stands before the patches
        self.patches = nn.Conv2d(3, config.width, config.patch, config.patch, bias=False)
        self.positions = nn.Embedding((config.side // config.patch) ** 2 + 1, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, side, side], normalised → [n, projection], what texts are compared with."""
        x = self._embedded(pixels)
        for layer in self.layers:
            x = layer(x)
        return self.projection(self.norm_out(x[:, 0]))

    def hidden(self, pixels: Tensor) -> Tensor:
        """The same → [n, 1 + p², c], what the last layer but one says of each patch."""
        x = self._embedded(pixels)
        for layer in self.layers[:-1]:
            x = layer(x)
        return x

    def _embedded(self, pixels: Tensor) -> Tensor:
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        first = self.first.expand(len(pixels), 1, -1)
        return self.norm_in(torch.cat([first, patches], dim=1) + self.positions.weight)
