"""Tensors as pictures that stand inside a page: small PNG and WebP files in base64.

Numbers become grey levels, and the page colours them (`templates/page.html`, its filters): 128 is 0 on the
scale that has two sides, 0 is 0 on the other.
"""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

__all__ = ["one_sided", "photo", "tiles", "two_sided"]

Levels = npt.NDArray[np.uint8]

GAP = 1  # positions between tiles
NEUTRAL = 128
QUALITY = 82  # of WebP
LONGEST_PHOTO = 320  # pixels of a side


def two_sided(x: Tensor, most: float) -> Levels:
    """−most … most → 1 … 255, 0 → 128."""
    scaled = x.float().numpy() * (127.0 / most if most > 0.0 else 0.0)
    return np.asarray(np.clip(np.rint(scaled), -127, 127) + NEUTRAL, dtype=np.uint8)


def one_sided(x: Tensor, most: float) -> Levels:
    """0 … most → 0 … 255."""
    scaled = x.float().numpy() * (255.0 / most if most > 0.0 else 0.0)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def tiles(levels: Levels, columns: int | None = None, background: int = NEUTRAL) -> Levels:
    """[k, h, w] side by side → one picture, with gaps between; in `columns`, or about square."""
    k, h, w = levels.shape
    columns = columns or min(k, max(1, math.ceil(math.sqrt(k * h / w))))
    rows = math.ceil(k / columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP), background, dtype=np.uint8)
    for index, tile in enumerate(levels):
        top, left = (index // columns) * (h + GAP), (index % columns) * (w + GAP)
        sheet[top : top + h, left : left + w] = tile
    return sheet


def grey(levels: Levels) -> str:
    """Grey levels [h, w] as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def photo(image: Image.Image, longest: int = LONGEST_PHOTO) -> str:
    """A picture as a WebP in base64, made smaller where it is large."""
    if max(image.size) > longest:
        image = image.copy()
        image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(buffer.getvalue()).decode()
