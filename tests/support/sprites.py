"""Sprites that need no font: discs, each concept's in one of a few colours."""

from __future__ import annotations

import numpy as np

from sdscratch.errors import SdscratchError
from sdscratch.pictograms.pictograms import SIDE, SpriteTable, find_font, keys, table_of
from support.absent import absent

COLOURS = ((220, 30, 30), (30, 180, 60), (40, 60, 220))
RADIUS = 0.45  # of a disc, in units of a sprite's side


def disc_table() -> SpriteTable:
    """A disc for every concept and colour, with hard edges: the first is of COLOURS[0], and so on in turn."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = np.hypot(x, y) < RADIUS * SIDE
    pixels = np.zeros((len(COLOURS), SIDE, SIDE, 4), np.uint8)
    for index, colour in enumerate(COLOURS):
        pixels[index][inside] = (*colour, 255)
    few = table_of([], pixels.transpose(0, 1, 3, 2).copy())
    return SpriteTable({key: row % len(COLOURS) for row, key in enumerate(keys())}, few.pixels, few.boxes)


def need_font() -> None:
    """Skip where pictograms cannot be drawn; continuous integration installs what it takes."""
    try:
        find_font()
    except SdscratchError:
        absent("the font Noto Color Emoji (Debian package fonts-noto-color-emoji) is not installed")
