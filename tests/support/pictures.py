"""Pictures for tests: PNG files made by hand, chunk by chunk, and a record to go with a picture."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from sdscratch.images import Record
from sdscratch.options import SD1_DEFAULTS, GenerateOptions

__all__ = ["gradient", "png", "png_chunk", "record"]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file of the given IHDR; `rows` are unfiltered, each with its leading 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *chunks,
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth RGB picture without symmetry."""
    x = np.linspace(0, 255, width)[None, :] + np.zeros((height, 1))
    y = np.linspace(0, 255, height)[:, None] + np.zeros((1, width))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


def record(**changes: Any) -> Record:
    """A record; `changes` go to its options where they have such a field."""
    options = GenerateOptions(prompt="a red apple").resolve(SD1_DEFAULTS, seed=7)
    made = Record("txt2img", options, "v1-5", "6ce0161689", "float32", "cpu")
    inner = {name: value for name, value in changes.items() if hasattr(options, name)}
    outer = {name: value for name, value in changes.items() if name not in inner}
    return replace(made, options=replace(options, **inner), **outer)
