"""Pictograms with their words: drawn once from the Noto Color Emoji font, then kept as a table of sprites.

A sprite is one pictogram, or one that was painted in another colour, or an animal that wears something; its
words are what a caption may call it. `load_sprites` draws all of them (a second) or reads them from a cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from sdscratch.embedded import concepts
from sdscratch.embedded.concepts import (
    ACCESSORIES,
    CONCEPTS,
    HEADS,
    HUES,
    INTRICATE,
    MORE_CONCEPTS,
    RECOLOURED,
    Wearable,
)
from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write

__all__ = ["SIDE", "Sprite", "SpriteTable", "draw_sprites", "dress", "find_font", "load_sprites", "recolour"]

FONT_NAME = "NotoColorEmoji.ttf"
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
FONT_SIZE = 109  # the one size that the font's bitmaps have
# How often a sprite is shown, in relation to a plain one of CONCEPTS.
MORE_WEIGHT, COLOUR_WEIGHT, WORN_WEIGHT = 0.25, 0.2, 0.5
SIDE = 136  # of a sprite, in pixels: such a bitmap is 136 wide and 128 high


@dataclass(frozen=True)
class Sprite:
    """What a sprite shows, in words."""

    names: tuple[str, ...]  # "donut", "doughnut"
    article: bool  # whether one says "a" before them
    wearing: str = ""  # "sunglasses", "a top hat", or nothing
    weight: float = 1.0  # how often it is shown, in relation to others


@dataclass(frozen=True)
class SpriteTable:
    """All sprites: words and pixels, in the same order."""

    sprites: tuple[Sprite, ...]
    pixels: npt.NDArray[np.uint8]  # [sprites, SIDE, SIDE, 4]; colours not multiplied by alpha


def find_font(path: Path | None = None) -> Path:
    """The font's file: `path`, or where systems keep it.

    Raises:
        SdscratchError: it is not there; the message names the Debian package.
    """
    folders = [] if path else [Path(folder).expanduser() for folder in FONT_FOLDERS]
    found = [path] if path else [file for folder in folders for file in folder.rglob(FONT_NAME)]
    for file in found:
        if file.is_file():
            return file
    raise SdscratchError(
        f"the font Noto Color Emoji is not {f'at {path}' if path else 'installed'}; "
        "install the Debian package fonts-noto-color-emoji, or give the path of NotoColorEmoji.ttf"
    )


def load_sprites(cache: Path, font: Path | None = None) -> SpriteTable:
    """The sprites from the folder `cache`, or drawn and kept there, under a name that says from what."""
    file = find_font(font)
    digest = hashlib.sha256()
    for source in (file, Path(concepts.__file__), Path(__file__)):
        digest.update(source.read_bytes())
    kept = cache / f"sprites-{digest.hexdigest()[:12]}.npy"
    if kept.is_file():
        return SpriteTable(tuple(sprite for sprite, _ in _plan()), np.load(kept))
    table = draw_sprites(file)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(kept, overwrite=True) as stream:
        np.save(stream, table.pixels)
    return table


def draw_sprites(font: Path) -> SpriteTable:
    """Draw every sprite with the font's file."""
    glyphs = _Glyphs(font)
    plan = list(_plan())
    return SpriteTable(
        tuple(sprite for sprite, _ in plan), np.stack([np.asarray(recipe.draw(glyphs)) for _, recipe in plan])
    )


@dataclass(frozen=True)
class _Recipe:
    """How a sprite is drawn: the pictogram, perhaps in another colour, perhaps with something on."""

    short_name: str
    colour: str = ""
    accessory: str = ""

    def draw(self, glyphs: _Glyphs) -> Image.Image:
        picture = glyphs.draw(self.short_name)
        if self.colour:
            picture = recolour(picture, self.colour)
        if self.accessory:
            picture = dress(picture, glyphs.draw(self.accessory), self.accessory, HEADS[self.short_name])
        return picture


def _plan() -> Iterator[tuple[Sprite, _Recipe]]:
    """Every sprite with its recipe, in the order of the table."""
    tables = ((CONCEPTS, 1.0), (MORE_CONCEPTS, MORE_WEIGHT))
    entries = [(*_parse(line), weight) for table, weight in tables for line in table.strip().splitlines()]
    drawn = {name for _, names, _, _ in entries for name in names}  # the font has a green apple of its own
    for short_name, names, article, weight in entries:
        yield Sprite(names, article, weight=weight * INTRICATE.get(short_name, 1.0)), _Recipe(short_name)
        for colour in HUES if short_name in RECOLOURED else ():
            called = f"{colour} {RECOLOURED[short_name]}"
            if called not in drawn:
                yield Sprite((called,), True, weight=COLOUR_WEIGHT), _Recipe(short_name, colour)
        for accessory, worn in ACCESSORIES.items() if short_name in HEADS else ():
            yield Sprite(names, article, worn, weight=WORN_WEIGHT), _Recipe(short_name, accessory=accessory)


def _parse(line: str) -> tuple[str, tuple[str, ...], bool]:
    """Short name, the words for it, and whether they take an article."""
    short_name, _, words = line.partition(" = ")
    words = words or short_name
    return short_name, tuple(words.removeprefix("*").split(" / ")), not words.startswith("*")


class _Glyphs:
    """Emoji drawn by their CLDR short names."""

    def __init__(self, font: Path) -> None:
        try:
            import emoji
        except ImportError:
            raise SdscratchError(
                "the emoji's names are missing; install the Python package emoji (extra `train`)"
            ) from None
        if not features.check("raqm"):  # without it, a polar bear is a bear and a snowflake
            raise SdscratchError("Pillow cannot join emoji; install the Debian package libfribidi0")
        self.font = ImageFont.truetype(font, FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
        self.characters = {
            record["en"].strip(":").replace("_", " "): character
            for character, record in emoji.EMOJI_DATA.items()
            if record["status"] == emoji.STATUS["fully_qualified"]
        }

    def draw(self, short_name: str) -> Image.Image:
        """[SIDE, SIDE] RGBA."""
        picture = Image.new("RGBA", (SIDE, SIDE))
        ImageDraw.Draw(picture).text((0, 4), self.characters[short_name], font=self.font, embedded_color=True)
        return picture


def recolour(picture: Image.Image, colour: str) -> Image.Image:
    """Turn the picture's main hue, and what lies within 40 degrees of it, into another; leave the rest."""
    hue, saturation_factor, value_factor = HUES[colour]
    hsv = np.asarray(picture.convert("RGB").convert("HSV")).astype(np.float32)
    hues, saturation = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255
    weights = saturation * (np.asarray(picture.getchannel("A")) / 255) * (saturation > 0.25)
    histogram, edges = np.histogram(hues, bins=36, range=(0, 360), weights=weights)
    main = edges[histogram.argmax()] + 5
    distance = (hues - main + 180) % 360 - 180
    near = (abs(distance) < 40) & (saturation > 0.15)
    turned = hsv.copy()
    turned[..., 0] = ((hue + 0.35 * distance) % 360) * (255 / 360)
    turned[..., 1] = np.clip(hsv[..., 1] * saturation_factor, 0, 255)
    turned[..., 2] = np.clip(hsv[..., 2] * value_factor, 0, 255)
    mixed = np.where(near[..., None], turned, hsv).round().astype(np.uint8)
    result = Image.fromarray(mixed, "HSV").convert("RGB")
    result.putalpha(picture.getchannel("A"))
    return result


def dress(head: Image.Image, accessory: Image.Image, kind: str, wearable: Wearable) -> Image.Image:
    """Put an accessory on a head, then fit both into one sprite."""
    if kind == "sunglasses":
        width = 2.4 * wearable.gap  # the lenses' distance is 0.475 of the pictogram's side
        anchor, at = (0.5, 0.5), wearable.eyes
    else:
        width = wearable.hat
        anchor, at = (0.5, 0.84), (wearable.eyes[0], wearable.brim)
    side = round(width * SIDE)
    margin = SIDE // 2
    canvas = Image.new("RGBA", (SIDE + 2 * margin, SIDE + 2 * margin))
    canvas.alpha_composite(head, (margin, margin))
    corner = tuple(margin + round(a * SIDE - b * side) for a, b in zip(at, anchor, strict=True))
    canvas.alpha_composite(accessory.resize((side, side), Image.Resampling.LANCZOS), corner)
    return _fit(canvas)


def _fit(canvas: Image.Image) -> Image.Image:
    """What is drawn on the canvas, centred in a sprite and, if it must be, made smaller."""
    left, top, right, bottom = canvas.getbbox() or (0, 0, SIDE, SIDE)
    side = max(right - left, bottom - top, 120) + 12
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    square = canvas.crop((x, y, x + side, y + side))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
