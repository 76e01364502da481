"""A PNG's chunks beside its pixels: those that Pillow would stumble on are left out, and named.

Compressed text and colour profiles can unpack to anything (a bomb, or a graph with pictures in it), or be
broken, while the pixels are sound. The walk reads the file once, by its lengths (PNG specification, 5.3).
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

__all__ = ["LARGEST", "before_pixels", "without_burdens"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 1 << 20  # bytes that one compressed text or profile may unpack to: Pillow's own line
MOST_TEXT = 48 << 20  # bytes of text in all; Pillow's line is at 64 MB
HEADER = struct.Struct(">I4s")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
KINDS = {
    b"tEXt": "a text",
    b"zTXt": "a text",
    b"iTXt": "a text",
    b"iCCP": "its colour profile",
    b"eXIf": "EXIF data",
}


def without_burdens(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A PNG's bytes without what nobody should unpack and its pixels do not need; and what that was."""
    walk = _Walk(io.BytesIO(data))
    kept = walk.all()
    return (data if not walk.left_out else kept), tuple(walk.left_out)


def before_pixels(file: BinaryIO) -> tuple[BinaryIO, tuple[str, ...]]:
    """What stands before a PNG's pixels, likewise, as a file that ends there; only as much is read."""
    walk = _Walk(file)
    return io.BytesIO(walk.all(only_head=True)), tuple(walk.left_out)


class _Walk:
    """One pass over the chunks."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left_out: list[str] = []
        self.text = 0  # bytes of text so far

    def all(self, only_head: bool = False) -> bytes:
        """The chunks that are kept. What is no chunk any more is left to Pillow's judgement."""
        kept = [self.file.read(len(SIGNATURE))]
        while len(start := self.file.read(HEADER.size)) == HEADER.size:
            length, kind = HEADER.unpack(start)
            if only_head and kind == b"IDAT":
                kept.append(start)
                return b"".join(kept)
            body = _read(self.file, length + 4) if length <= 1 << 31 else b""
            reason = self._burden(kind, body[:-4]) if len(body) == length + 4 else None
            if reason is None:
                kept += [start, body]
            else:
                self.left_out.append(reason)
        return b"".join([*kept, start, self.file.read() if not only_head else b""])

    def _burden(self, kind: bytes, body: bytes) -> str | None:
        """Why a chunk is left out; None to keep it."""
        if kind not in KINDS:
            return None
        name, _, rest = body.partition(b"\0")
        what = f"{KINDS[kind]} ({name[:79].decode('latin-1')})" if kind in TEXTS else KINDS[kind]
        size = len(body)
        packed = _packed(kind, rest)
        if packed is not None:
            unpacked = _unpacked_size(packed)
            if unpacked is None:
                return f"{what} that cannot be unpacked"
            if unpacked > LARGEST:
                return f"{what} of more than {LARGEST >> 20} MiB unpacked"
            size = unpacked
        if kind in TEXTS:
            if self.text + size > MOST_TEXT:
                return f"{what}, beyond {MOST_TEXT >> 20} MiB of text in all"
            self.text += size
        return None


def _read(file: BinaryIO, count: int) -> bytes:
    """So many bytes, or those that there are; a file's own `read` makes room for as many as a liar says."""
    pieces = []
    while count > 0 and (piece := file.read(min(count, 1 << 20))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _packed(kind: bytes, rest: bytes) -> bytes | None:
    """The compressed part of a chunk after its name; None where nothing is compressed."""
    if kind in (b"zTXt", b"iCCP"):
        return rest[1:] if rest[:1] == b"\0" else b""  # no method but 0 is known; b"" cannot be unpacked
    if kind == b"iTXt" and rest[:1] == b"\1":
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2] if rest[1:2] == b"\0" else b""
    return None


def _unpacked_size(packed: bytes) -> int | None:
    """How many bytes come out, counted to a little beyond `LARGEST`; None for what is broken."""
    if not packed:
        return None
    try:
        return len(zlib.decompressobj().decompress(packed, LARGEST + 1))
    except zlib.error:
        return None
