"""Sprites that need no font: discs of one colour."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from sdscratch.embedded.pictograms import SIDE, Sprite, SpriteTable
from support.absent import absent

COLOURS = {"red disc": (220, 30, 30), "green disc": (30, 180, 60), "blue disc": (40, 60, 220)}


def disc_table() -> SpriteTable:
    """Three discs that fill most of their sprites, with hard edges; what is transparent there is black."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = np.hypot(x, y) < 0.45 * SIDE
    pixels = np.zeros((len(COLOURS), SIDE, SIDE, 4), np.uint8)
    for index, colour in enumerate(COLOURS.values()):
        pixels[index][inside] = (*colour, 255)
    return SpriteTable(tuple(Sprite((name,), True) for name in COLOURS), pixels)


def need_font() -> None:
    """Skip where pictograms cannot be drawn; continuous integration installs what it takes."""
    if find_spec("emoji") is None:
        absent("the Python package emoji (extra `train`) is not installed")
    from sdscratch.embedded.pictograms import find_font
    from sdscratch.errors import SdscratchError

    try:
        find_font()
    except SdscratchError:
        absent("the font Noto Color Emoji (Debian package fonts-noto-color-emoji) is not installed")
