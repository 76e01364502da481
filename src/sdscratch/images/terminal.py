"""A picture in a terminal: as the terminal takes pictures, else in half blocks of 24-bit colour.

    kitty       its graphics protocol: PNG in base64, in pieces of 4096 characters between ESC _G and ESC \\
    iterm       iTerm2's inline images: OSC 1337, a file in base64
    sixel       DEC's: six rows at a time, a character a column and colour (VT330/340 manual, chapter 14)
    blocks      U+2580, whose upper half has the foreground's colour and whose lower half the background's

Everything is as wide as the terminal at most.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from PIL import Image

__all__ = ["WAYS", "shown", "way_of"]

PIECE = 4096  # characters of kitty's pieces
CELL = 8, 16  # pixels of a character's cell, about; terminals that take pixels scale by cells
COLOURS = 255  # of a sixel picture; terminals have 256

KITTY_PROGRAMS = {"ghostty"}
ITERM_PROGRAMS = {"iTerm.app", "WezTerm", "mintty", "vscode"}
SIXEL_TERMS = ("sixel", "mlterm", "foot", "yaft", "contour")


def way_of(environment: Mapping[str, str]) -> str:
    """How this terminal takes pictures, as its own variables tell: a name of `WAYS`."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return "blocks"  # which passes on no pictures unless it is told to
    if "kitty" in term or "KITTY_WINDOW_ID" in environment or program in KITTY_PROGRAMS:
        return "kitty"
    if program in ITERM_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if any(name in term for name in SIXEL_TERMS):
        return "sixel"
    return "blocks"


def shown(image: Image.Image, way: str, columns: int) -> str:
    """What to write to the terminal, with a line's end.

    Args:
        image: of any mode that RGB can be made of; alpha is laid over black.
        way: a name of `WAYS`.
        columns: characters that a line has.
    """
    return f"{WAYS[way](image.convert('RGB'), columns)}\n"


def kitty(image: Image.Image, columns: int) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: transmit and show, f=100 is PNG."""
    data = _png(image)
    pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    text = []
    for index, piece in enumerate(pieces):
        more = int(index + 1 < len(pieces))
        keys = f"a=T,f=100,c={_cells(image, columns)},q=2,m={more}" if index == 0 else f"m={more}"
        text.append(f"\x1b_G{keys};{piece}\x1b\\")
    return "".join(text)


def iterm(image: Image.Image, columns: int) -> str:
    """https://iterm2.com/documentation-images.html: the whole file at once."""
    data = _png(image)
    size = len(base64.b64decode(data))
    keys = f"inline=1;size={size};width={_cells(image, columns)};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{data}\x07"


def sixel(image: Image.Image, columns: int) -> str:
    """Colours by median cut; runs of a character are counted (`!n`)."""
    fitted = _scaled(image, min(image.width, columns * CELL[0]))
    indexed = fitted.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indices = np.asarray(indexed)
    palette = np.asarray(indexed.getpalette() or [], np.int64).reshape(-1, 3)
    used = np.unique(indices)
    colours = "".join(
        f"#{index};2;{';'.join(str(round(level * 100 / 255)) for level in palette[index])}" for index in used
    )
    bands = "-".join(_band(indices[top : top + 6]) for top in range(0, len(indices), 6))
    return f'\x1bP0;1;0q"1;1;{fitted.width};{fitted.height}{colours}{bands}\x1b\\'


def blocks(image: Image.Image, columns: int) -> str:
    """Two pixels a character, one above the other."""
    fitted = _scaled(image, min(image.width, columns))
    pixels = np.asarray(fitted)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    return "\n".join(_row(upper, lower) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True))


WAYS: Mapping[str, Callable[[Image.Image, int], str]] = {
    "kitty": kitty,
    "iterm": iterm,
    "sixel": sixel,
    "blocks": blocks,
}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _cells(image: Image.Image, columns: int) -> int:
    """How many characters wide: its own size as far as the terminal has room."""
    return max(1, min(columns, -(-image.width // CELL[0])))


def _scaled(image: Image.Image, width: int) -> Image.Image:
    if width >= image.width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((max(width, 1), height), Image.Resampling.LANCZOS)


def _band(rows: np.ndarray) -> str:
    """Up to six rows: each of their colours written over the same line (`$`)."""
    weights = 1 << np.arange(len(rows))[:, None]
    lines = []
    for index in np.unique(rows):
        values = ((rows == index) * weights).sum(axis=0)
        lines.append(f"#{index}{''.join(_runs(values))}")
    return "$".join(lines)


def _runs(values: np.ndarray) -> Iterator[str]:
    edges = np.flatnonzero(np.diff(values)) + 1
    for run in np.split(values, edges):
        character = chr(63 + int(run[0]))
        yield f"!{len(run)}{character}" if len(run) > 3 else character * len(run)


def _row(upper: np.ndarray, lower: np.ndarray) -> str:
    """Colours are said where they change."""
    text, before = [], None
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        if (above, below) != before:
            text.append(f"\x1b[38;2;{';'.join(map(str, above))};48;2;{';'.join(map(str, below))}m")
            before = above, below
        text.append("\u2580")
    return f"{''.join(text)}\x1b[0m"
