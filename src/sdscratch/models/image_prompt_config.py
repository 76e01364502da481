"""The shapes of what lets a picture stand in a prompt: IP-Adapters, and the image encoder that they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ImageEncoderConfig", "ImagePromptConfig"]


@dataclass(frozen=True)
class ImageEncoderConfig:
    """CLIP's image encoder (`models.image_encoder`); these are the sizes of ViT-H/14, IP-Adapter's."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    feed_forward: int = 5120
    projection: int = 1024
    side: int = 224  # pixels
    patch: int = 14
    activation: Literal["quick_gelu", "gelu"] = "gelu"


@dataclass(frozen=True)
class ImagePromptConfig:
    """An IP-Adapter (`models.ip_adapter`)."""

    kind: Literal["classic", "plus", "full"] = "classic"
    features: int = 1024  # of the image encoder: its projection's, or its width
    context: int = 768
    tokens: int = 4
    widths: tuple[int, ...] = ()  # of the U-Net's cross-attentions: way down, way up, middle
    width: int = 768  # the Plus adapter's, and the rest of it
    depth: int = 4
    heads: int = 12
    head_width: int = 64
    feed_forward: int = 3072
