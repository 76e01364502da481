"""Pictograms of the font Noto Color Emoji, drawn once and kept as a table of sprites.

Shapes: a sprite is SIDE rows of 4 channels of SIDE pixels, so that both its axes can be resampled by a matrix
product each without moving data; red, green and blue are multiplied by alpha, as resampling needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write
from sdscratch.home import expanded
from sdscratch.pictograms import colours
from sdscratch.pictograms.colours import colours_of, recolour
from sdscratch.pictograms.vocabulary import concepts

__all__ = ["SIDE", "SpriteTable", "draw_sprites", "find_font", "keys", "load_sprites", "table_of"]

FONT_NAME = "NotoColorEmoji.ttf"
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
FONT_SIZE = 109  # the one size that the font's bitmaps have
SIDE = 136  # of a sprite, in pixels: such a bitmap is 136 wide and 128 high

Key = tuple[str, str]
"""A concept's name, and the colour that it was painted in or nothing."""


@dataclass(frozen=True)
class SpriteTable:
    """All sprites."""

    rows: dict[Key, int]
    pixels: npt.NDArray[np.uint8]  # [sprites, SIDE, 4, SIDE]
    boxes: npt.NDArray[np.float64]  # [sprites, 4]: left, top, right, bottom of what is drawn; 1 = the side


def find_font(path: Path | None = None) -> Path:
    """The font's file: `path`, or where systems keep it.

    Raises:
        SdscratchError: it is not there; the message names the Debian package.
    """
    folders = [] if path else [expanded(folder) for folder in FONT_FOLDERS]
    found = [path] if path else [file for folder in folders for file in folder.rglob(FONT_NAME)]
    for file in found:
        if file.is_file():
            return file
    raise SdscratchError(
        f"the font Noto Color Emoji is not {f'at {path}' if path else 'installed'}; "
        "install the Debian package fonts-noto-color-emoji, or give the path of NotoColorEmoji.ttf"
    )


def load_sprites(cache: Path | None, font: Path | None = None) -> SpriteTable:
    """The sprites from the folder `cache`, or drawn and kept there, under a name that says from what.

    Without a folder they are drawn and not kept.
    """
    file = find_font(font)
    if cache is None:
        return draw_sprites(file)
    digest = hashlib.sha256(repr(concepts()).encode())
    for source in (file, Path(colours.__file__), Path(__file__)):
        digest.update(source.read_bytes())
    kept = cache / f"sprites-{digest.hexdigest()[:12]}.npy"
    if kept.is_file():
        return table_of(keys(), np.load(kept))
    table = draw_sprites(file)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(kept, overwrite=True) as stream:
        np.save(stream, table.pixels)
    return table


def draw_sprites(font: Path) -> SpriteTable:
    """Draw every sprite with the font's file.

    Raises:
        SdscratchError: Pillow cannot join emoji.
    """
    if not features.check("raqm"):  # without it, a polar bear is a bear and a snowflake
        raise SdscratchError("Pillow cannot join emoji; install the Debian package libfribidi0")
    face = ImageFont.truetype(font, FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    sprites = []
    for concept in concepts():
        picture = Image.new("RGBA", (SIDE, SIDE))
        ImageDraw.Draw(picture).text((0, 4), concept.emoji, font=face, embedded_color=True)
        sprites.append(_sprite(picture))
        sprites += [_sprite(recolour(picture, colour)) for colour in colours_of(concept.name)]
    return table_of(keys(), np.stack(sprites))


def table_of(named: Iterable[Key], pixels: npt.NDArray[np.uint8]) -> SpriteTable:
    """A table of these sprites, with the boxes that bound what is drawn."""
    boxes = []
    for sprite in pixels:
        across, down = (np.flatnonzero((sprite[:, 3] > 32).any(axis=axis)) for axis in (0, 1))
        boxes.append((across[0] / SIDE, down[0] / SIDE, (across[-1] + 1) / SIDE, (down[-1] + 1) / SIDE))
    return SpriteTable({key: row for row, key in enumerate(named)}, pixels, np.array(boxes))


def keys() -> list[Key]:
    """What there is a sprite of, in the order of the table."""
    return [(each.name, colour) for each in concepts() for colour in ("", *colours_of(each.name))]


def _sprite(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """[SIDE, 4, SIDE]."""
    rgba = np.asarray(picture).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba.round().astype(np.uint8).transpose(0, 2, 1).copy()
