"""A small folder of captioned pictures for the trainer."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

__all__ = ["write_pictures"]

COLOURS = ("red", "green", "blue", "orange")


def write_pictures(folder: Path, count: int = 8, side: int = 64) -> Path:
    """Squares and discs, each with its caption in a text file."""
    folder.mkdir(parents=True)
    for index in range(count):
        picture = Image.new("RGB", (side, side), "white")
        colour, corner = COLOURS[index % 4], 3 * index
        box = [corner, 8, corner + side // 2, 8 + side // 2]
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if index % 3 else draw.rectangle)(box, colour)
        picture.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a {colour} {'disc' if index % 3 else 'square'}")
    return folder
