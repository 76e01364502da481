"""Pixels as the networks see them, and back; the one module of this package that imports torch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["to_picture", "to_tensor"]


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture → [1, 3, H, W] float32 in −1 to 1."""
    levels = torch.from_numpy(np.array(picture, dtype=np.float32))
    return (levels / 255.0 * 2.0 - 1.0).permute(2, 0, 1)[None]


def to_picture(pixels: Tensor) -> Image.Image:
    """[1, 3, H, W] float32, −1 to 1 (clamped) → RGB picture, rounded to the nearest level."""
    levels = ((pixels[0] / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round()
    return Image.fromarray(levels.permute(1, 2, 0).to("cpu", torch.uint8).numpy())
