"""Text in the lowest bits of the pixels, column by column: of the alpha channel, else of red, green, blue.

NovelAI writes its record so, and an extension of the web UIs theirs: 15 letters that say which of four kinds
it is, the length in bits (32, the highest first), and UTF-8, gzipped or not.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["hidden_text"]

KINDS: Mapping[str, tuple[bytes, bytes]] = {  # bands: plain, gzipped
    "A": (b"stealth_pnginfo", b"stealth_pngcomp"),
    "RGB": (b"stealth_rgbinfo", b"stealth_rgbcomp"),
}
MARK, LENGTH = 15, 4  # bytes
LONGEST = 1 << 20  # bytes of text
GZIP = 16 + zlib.MAX_WBITS


def hidden_text(image: Image.Image) -> str:
    """The text hidden in an RGB or RGBA picture; "" where there is none, or it is broken."""
    if image.mode not in ("RGB", "RGBA"):
        return ""
    for bands, (plain, packed) in KINDS.items():
        if set(bands) <= set(image.getbands()):
            found = _bytes(image, bands, MARK + LENGTH)
            if found.startswith((plain, packed)):
                length = int.from_bytes(found[MARK:], "big") // 8
                data = (
                    _bytes(image, bands, MARK + LENGTH + length)[MARK + LENGTH :]
                    if length <= LONGEST
                    else b""
                )
                return _text(data, gzipped=found.startswith(packed))
    return ""


def _bytes(image: Image.Image, bands: str, count: int) -> bytes:
    """The first bytes that the lowest bits make; only as many columns are looked at as hold them."""
    columns = min(-(-count * 8 // (image.height * len(bands))), image.width)
    strip = image.crop((0, 0, columns, image.height))
    levels: NDArray[np.uint8] = np.stack([np.asarray(strip.getchannel(band)) for band in bands], axis=-1)
    bits = levels.transpose(1, 0, 2).reshape(-1) & 1
    return np.packbits(bits[: count * 8]).tobytes()[:count]


def _text(data: bytes, *, gzipped: bool) -> str:
    try:
        return (zlib.decompressobj(GZIP).decompress(data, LONGEST) if gzipped else data).decode()
    except (zlib.error, UnicodeDecodeError):
        return ""
