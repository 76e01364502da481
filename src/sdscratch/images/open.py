"""Opening what should be a picture: named and refused if it is not, is too big, or is damaged."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from sdscratch.errors import ImageError, SdscratchError

__all__ = ["opened"]

MAX_PIXELS = 89_478_485  # Pillow's own line between a picture and a decompression bomb: 89 megapixels

SIGNATURES = {  # Pillow's formats by how they begin; WebP is checked further in `_format`
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
}
OTHERS = {  # what is met in a picture's place, by how it begins
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"8BPS": "a Photoshop picture",
    b"\0\0\0\x0cjP": "a JPEG 2000 picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"%PDF": "a PDF document",
    b"PK": "a zip archive",
    b"\x80": "a Python pickle",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the picture itself (run `git lfs pull`)",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML document",
}


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The decoded picture in a file, or with `-` in standard input.

    Raises:
        ImageError: it is missing, unreadable, no PNG, JPEG or WebP, over 89 megapixels, or damaged, which may
            show only in the body of the `with`.
    """
    name = "standard input" if str(path) == "-" else str(path)
    data = _read_bytes(path)
    kind = _format(data)
    if kind is None:
        raise ImageError(f"{name} is {_describe(data)}; give a PNG, JPEG or WebP picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                if kind == "PNG":
                    _mend_transparency(image, depth=data[24])
                image.load()
                yield image
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has more than 89 megapixels; make it smaller first") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except (SdscratchError, MemoryError):
        raise
    # Pillow's decoders raise anything from SyntaxError to struct.error on hostile bytes.
    except Exception as error:
        raise ImageError(f"{name} is a {kind} picture, but truncated or damaged ({error})") from error


def _mend_transparency(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to 8 bits a channel, which Pillow (13.0) does with the pixels only."""
    transparent = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(transparent, tuple) and depth == 16:
        image.info["transparency"] = tuple(level >> 8 for level in transparent)


def _read_bytes(path: str | Path) -> bytes:
    """The whole file if it begins like a picture, else its beginning (/dev/zero has no end)."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read()
        with Path(path).open("rb") as file:
            start = file.read(512)
            return start if _format(start) is None else start + file.read()
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; give a PNG, JPEG or WebP picture") from error
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture {path}; check its name") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _format(start: bytes) -> str | None:
    kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), None)
    return None if kind == "WEBP" and start[8:12] != b"WEBP" else kind


def _describe(start: bytes) -> str:
    """What a file that is no picture of ours really is."""
    if not start:
        return "empty"
    if start[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    if start[8:10] == b'{"':
        return "a safetensors file"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, name in OTHERS.items():
        if start.startswith(signature) or text.startswith(signature):
            return name
    if all(byte >= 0x20 or byte in b"\t\n\r" for byte in start):
        return "a text file"
    return "no picture that sdscratch knows"
