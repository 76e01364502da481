"""Other ways to draw a sprite, by rules. Shapes: [n, SIDE, 4, SIDE], 0 to 1, colours multiplied by alpha."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["STYLED"]

CELL = 8  # of pixel art, in a sprite's pixels
LEVELS = 7  # of each colour in pixel art
INK = 0.08  # how light a silhouette and a line are
SHARPNESS = 4.0  # of an outline: a step of a quarter of the full range is a whole line


def _pixel_art(sprites: Tensor) -> Tensor:
    """Large square pixels of few colours."""
    planes = sprites.transpose(1, 2)  # [n, 4, SIDE, SIDE]
    coarse = F.avg_pool2d(planes, CELL)
    alpha = coarse[:, 3:]
    colours = coarse[:, :3] / alpha.clamp_min(1e-3)
    solid = (alpha > 0.5).to(planes.dtype)
    cells = torch.cat([(colours.clamp(0, 1) * (LEVELS - 1)).round() / (LEVELS - 1) * solid, solid], dim=1)
    return F.interpolate(cells, scale_factor=CELL, mode="nearest").transpose(1, 2)


def _silhouette(sprites: Tensor) -> Tensor:
    """Its shape alone, in black."""
    alpha = sprites[:, :, 3:]
    return torch.cat([INK * alpha.expand(-1, -1, 3, -1), alpha], dim=2)


def _outline(sprites: Tensor) -> Tensor:
    """Black lines wherever neighbouring pixels differ, on paper."""
    planes = sprites.transpose(1, 2)
    alpha = planes[:, 3:]
    shades = torch.cat([planes[:, :3] + (1 - alpha), alpha], dim=1)  # as seen on white, and the shape itself
    shades = F.avg_pool2d(shades, 3, stride=1, padding=1, count_include_pad=False)
    lightest = F.max_pool2d(shades, 3, stride=1, padding=1)
    darkest = -F.max_pool2d(-shades, 3, stride=1, padding=1)
    lines = ((lightest - darkest).amax(dim=1, keepdim=True) * SHARPNESS - 0.5).clamp(0, 1)
    covered = torch.maximum(alpha, lines)
    paper = covered - (1 - INK) * lines
    return torch.cat([paper.expand(-1, 3, -1, -1), covered], dim=1).transpose(1, 2)


STYLED: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel art": _pixel_art,
    "silhouette": _silhouette,
    "outline": _outline,
}
