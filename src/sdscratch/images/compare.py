"""How near one picture comes to another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Likeness", "compare"]


@dataclass(frozen=True)
class Likeness:
    """What tells two pictures apart.

    Attributes:
        psnr: peak signal-to-noise ratio in dB over all channels; None where they are identical, or have no
            common size.
        differing: how many pixels differ, and the place (x, y) of the first.
        sizes: both, where they are not the same.
    """

    psnr: float | None = None
    differing: int = 0
    first: tuple[int, int] | None = None
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def identical(self) -> bool:
        """Whether every level of every pixel is the same."""
        return self.sizes is None and self.differing == 0

    def __str__(self) -> str:
        if self.sizes is not None:
            (width, height), (other_width, other_height) = self.sizes
            return f"another size: {width}x{height}, not {other_width}x{other_height}"
        if self.identical:
            return "identical"
        assert self.first is not None
        x, y = self.first
        return f"{self.differing} pixels differ, the first at {x}, {y}; PSNR {self.psnr:.1f} dB"


def compare(one: Image.Image, other: Image.Image) -> Likeness:
    """How near `one` comes to `other`, alpha included where one of them has it."""
    if one.size != other.size:
        return Likeness(sizes=(one.size, other.size))
    mode = "RGBA" if "A" in one.getbands() + other.getbands() else "RGB"
    a, b = (np.asarray(image.convert(mode), np.float64) for image in (one, other))
    rows, columns = np.nonzero((a != b).any(axis=2))
    if not len(rows):
        return Likeness()
    error = float(((a - b) ** 2).mean())
    psnr = 10 * math.log10(255**2 / error)
    return Likeness(psnr, len(rows), (int(columns[0]), int(rows[0])))
