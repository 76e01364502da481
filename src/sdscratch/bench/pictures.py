"""How far pictures are from each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Distance", "distance"]


@dataclass(frozen=True)
class Distance:
    """How far one picture is from another."""

    most: int  # levels of 255
    mean: float  # of the absolute differences, in levels
    psnr: float | None  # dB; None (infinite) where they are the same


def distance(picture: Image.Image, exact: Image.Image) -> Distance:
    """How far a picture is from the exact one of the same size."""
    one, other = (np.asarray(image, dtype=np.float64) for image in (picture, exact))
    difference = np.abs(one - other)
    mean_square = float(np.mean(difference**2))
    psnr = 10.0 * math.log10(255.0**2 / mean_square) if mean_square else None
    return Distance(int(difference.max()), float(difference.mean()), psnr)
