"""Embeddings that travel in pictures, as the web UI writes them (modules/textual_inversion; no torch here).

A PNG may hold the text chunk `sd-ti-embedding`: base64 of JSON, tensors as {"TORCHTENSOR": nested lists}.
Else the JSON, compressed by zlib, is in the low four bits of the pixels: the low halves of its bytes left of
the picture, the high halves right of it, a black column between, each half xored with a generator's numbers.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdscratch.errors import CheckpointError
from sdscratch.show import printable

__all__ = ["is_card", "read_card"]

KEY = b"sd-ti-embedding"
PNG = b"\x89PNG\r\n\x1a\n"
MAX_JSON = 64 << 20
FORMATS = ("PNG", "WEBP")
MAX_PIXELS = 64 << 20


def is_card(path: Path) -> bool:
    """Whether the file begins like a PNG or a WebP picture.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise CheckpointError(f"{printable(path)} cannot be read: {error.strerror}") from None
    return start.startswith(PNG) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def read_card(path: Path) -> dict[str, Any]:
    """The JSON object in a card.

    Raises:
        CheckpointError: unreadable, or a picture with nothing in it.
    """
    try:
        text = _text(path)
        record = json.loads(base64.b64decode(text) if text is not None else _hidden(path))
    except OSError as error:
        raise CheckpointError(f"{printable(path)} cannot be read: {printable(error)}") from None
    except (ValueError, RecursionError, zlib.error, Image.DecompressionBombError):
        raise CheckpointError(
            f"{printable(path)} is a picture without an embedding in it; give the picture that the web UI "
            "saved, not one that was converted since"
        ) from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{printable(path)} holds something that is no embedding")
    return record


def _text(path: Path) -> bytes | None:
    """The text chunk of a PNG. Pillow would refuse long ones."""
    with path.open("rb") as file:
        if file.read(8) != PNG:
            return None
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"tEXt" and length <= 2 * MAX_JSON:
                key, _, text = file.read(length).partition(b"\0")
                if key == KEY:
                    return text
                file.seek(4, 1)
            elif kind == b"IEND":
                return None
            else:
                file.seek(length + 4, 1)
    return None


def _hidden(path: Path) -> bytes:
    """What the low bits of the pixels hold.

    Raises:
        ValueError, zlib.error: nothing.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too large")
        pixels = np.asarray(image.convert("RGB"), np.uint8)
    lit = pixels.min(axis=2)
    columns, rows = np.flatnonzero(lit.max(axis=0)), np.flatnonzero(lit.max(axis=1))
    if not len(columns):
        raise ValueError("black")
    low_bits = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(low_bits.sum(axis=(0, 2)) == 0)
    if len(black) < 2:
        raise ValueError("no columns between")
    low, high = _unmasked(low_bits[:, : black[0]]), _unmasked(low_bits[:, black[-1] + 1 :])
    if low.shape != high.shape:
        raise ValueError("halves of two sizes")
    unpacker = zlib.decompressobj()
    text = unpacker.decompress((high << 4 | low).tobytes(), MAX_JSON)
    if not unpacker.eof:
        raise ValueError("cut off, or too long")
    return text


def _unmasked(block: np.ndarray) -> np.ndarray:
    mask = np.fromiter(_generator(block.size), np.uint8, block.size).reshape(block.shape)
    unmasked: np.ndarray = block ^ (mask & 0x0F)
    return unmasked


def _generator(count: int) -> Iterator[int]:
    """Numerical Recipes' linear congruential generator from 0, its numbers modulo 255."""
    state = 0
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        yield state % 255
