"""Simple sceneries, drawn by rules: what lies behind a thing "on a meadow" or "at night"."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sdscratch.pictograms.scenes import SCENERIES, VIEWS

__all__ = ["backdrops"]

FINER = 2  # drawn so much finer, then averaged down: antialiasing

RGB = tuple[int, int, int]


class _Canvas:
    """A picture to draw on, in units of its side."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.picture = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.picture)

    def blend(self, top: float, bottom: float, upper: RGB, lower: RGB) -> None:
        """A colour that turns into another on its way down."""
        first, last = round(top * self.side), round(bottom * self.side)
        for y in range(first, last):
            share = (y - first) / max(1, last - first)
            colour = tuple(round(a + (b - a) * share) for a, b in zip(upper, lower, strict=True))
            self.draw.line((0, y, self.side, y), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: RGB, flat: float = 1.0) -> None:
        box = (x - radius, y - radius * flat, x + radius, y + radius * flat)
        self.draw.ellipse([value * self.side for value in box], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB) -> None:
        self.draw.rectangle([value * self.side for value in (left, top, right, bottom)], fill=colour)


def _meadow(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.55, 0.68)
    canvas.blend(0, horizon, (120, 190, 250), (205, 232, 255))
    canvas.disc(rng.uniform(0.0, 1.0), horizon + 0.28, 0.55, (110, 190, 90), flat=0.6)
    canvas.blend(horizon, 1, (110, 190, 80), (70, 150, 60))


def _night(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.76, 0.84)
    canvas.blend(0, horizon, (12, 16, 50), (40, 50, 110))
    for _ in range(26):
        size = rng.choice((0.006, 0.008, 0.012))
        canvas.disc(rng.uniform(0, 1), rng.uniform(0, horizon - 0.05), size, (255, 250, 215))
    canvas.blend(horizon, 1, (26, 38, 54), (16, 24, 36))


def _sea(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.45, 0.58)
    canvas.blend(0, horizon, (140, 205, 250), (225, 242, 255))
    canvas.blend(horizon, 1, (40, 125, 200), (15, 70, 145))
    for _ in range(12):
        y = rng.uniform(horizon + 0.05, 0.98)
        canvas.disc(rng.uniform(0, 1), y, rng.uniform(0.04, 0.1), (110, 180, 230), flat=0.08)


def _desert(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.55, 0.66)
    canvas.blend(0, horizon, (130, 200, 250), (255, 235, 200))
    for x in (rng.uniform(0.0, 0.4), rng.uniform(0.6, 1.0)):
        canvas.disc(x, horizon + 0.08, 0.42, (222, 180, 110), flat=0.4)
    canvas.blend(horizon, 1, (236, 200, 130), (214, 168, 96))


def _snow(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.58, 0.7)
    canvas.blend(0, horizon, (140, 165, 195), (190, 208, 228))
    canvas.disc(rng.uniform(0, 1), horizon + 0.2, 0.5, (228, 236, 246), flat=0.55)
    canvas.blend(horizon, 1, (250, 252, 255), (225, 234, 246))
    for _ in range(26):
        canvas.disc(rng.uniform(0, 1), rng.uniform(0, 1), 0.011, (255, 255, 255))


def _room(canvas: _Canvas, rng: random.Random) -> None:
    floor = rng.uniform(0.66, 0.74)
    canvas.blend(0, floor, (246, 226, 196), (236, 212, 178))
    canvas.blend(floor, 1, (176, 124, 78), (146, 98, 58))
    canvas.box(0, floor - 0.025, 1, floor, (255, 250, 240))
    left = rng.choice((0.05, 0.68))
    canvas.box(left, 0.1, left + 0.27, 0.42, (255, 255, 255))
    canvas.box(left + 0.02, 0.12, left + 0.125, 0.4, (150, 210, 250))
    canvas.box(left + 0.145, 0.12, left + 0.25, 0.4, (150, 210, 250))


_DRAWN: dict[str, Callable[[_Canvas, random.Random], None]] = {
    "meadow": _meadow,
    "night": _night,
    "sea": _sea,
    "desert": _desert,
    "snow": _snow,
    "room": _room,
}


def backdrops(size: int) -> npt.NDArray[np.uint8]:
    """[sceneries · VIEWS, size, 3, size]: every view of every scenery, in the order of SCENERIES."""
    pictures = []
    for scenery in SCENERIES:
        for view in range(VIEWS):
            canvas = _Canvas(FINER * size)
            _DRAWN[scenery](canvas, random.Random(f"{scenery} {view}"))
            pictures.append(np.asarray(canvas.picture.resize((size, size), Image.Resampling.BOX)))
    return np.stack(pictures).transpose(0, 1, 3, 2).copy()
