"""Pictures one after another as a film: GIF, WebP or APNG by the name's suffix; PNG is a contact sheet."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sdscratch.errors import UsageError
from sdscratch.files import atomic_write

__all__ = ["FILMS", "SPEED", "check_film", "chosen", "save_film", "there_and_back"]

FILMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ".gif": ("GIF", {"loop": 0, "disposal": 1}),
    ".webp": ("WEBP", {"loop": 0, "quality": 90, "method": 4}),
    ".apng": ("PNG", {"loop": 0, "default_image": False}),
}
SHEET = ".png"
SPEED = 12  # frames a second
HELD = 1500  # milliseconds that the last frame stays, of a film that does not go back


def check_film(path: Path) -> None:
    """
    Raises:
        UsageError: a suffix of no film.
    """
    if path.suffix.lower() not in (*FILMS, SHEET):
        raise UsageError(
            f"--film is {path}, but must end in {', '.join(FILMS)}, or in {SHEET} for a contact sheet"
        )


def chosen(count: int, wanted: int) -> list[int]:
    """Which of `count` pictures make a film of `wanted` frames: evenly spread, the last among them."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count - 1]
    return [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)]


def there_and_back(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """The same, and backwards to the beginning, so that it loops without a jump."""
    return [*frames, *reversed(frames[1:-1])]


def save_film(
    frames: Sequence[Image.Image], path: Path, *, hold: bool = True, overwrite: bool = False
) -> None:
    """Write frames of one size.

    Args:
        hold: the last frame stays for a while.

    Raises:
        UsageError: the suffix of no film; or the file exists and `overwrite` is not set.
        SdscratchError: it cannot be written.
    """
    check_film(path)
    buffer = io.BytesIO()
    if path.suffix.lower() == SHEET:
        sheet(frames).save(buffer, "PNG")
    else:
        kind, options = FILMS[path.suffix.lower()]
        durations = [round(1000 / SPEED)] * len(frames)
        if hold:
            durations[-1] = HELD
        first, *rest = [frame.convert("RGB") for frame in frames]
        first.save(buffer, kind, save_all=True, append_images=rest, duration=durations, **options)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(buffer.getvalue())


def sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """All frames side by side, row by row, about as many columns as rows."""
    width, height = frames[0].size
    columns = math.ceil(math.sqrt(len(frames) * height / width))
    columns = max(1, min(columns, len(frames)))
    made = Image.new("RGB", (columns * width, -(-len(frames) // columns) * height))
    for index, frame in enumerate(frames):
        made.paste(frame, ((index % columns) * width, (index // columns) * height))
    return made
