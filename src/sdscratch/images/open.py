"""Opening what should be a picture: named and refused if it is not, is too big, or is damaged."""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from sdscratch.errors import ImageError, SdscratchError
from sdscratch.images.chunks import before_pixels, without_burdens
from sdscratch.images.metadata.texts import LEFT_OUT

__all__ = ["glimpsed", "opened"]

START = 512  # bytes that tell what a file is
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
    """The decoded picture in a file, or with `-` in standard input; from several threads at once, if need be.

    What is too large or broken beside a PNG's pixels is left out, and named in `info[LEFT_OUT]`.

    Raises:
        ImageError: it is missing, unreadable, no PNG, JPEG or WebP, over 89 megapixels, or damaged, which may
            show only in the body of the `with`.
    """
    name = "standard input" if str(path) == "-" else str(path)
    data = _read_bytes(path)
    data, left_out = without_burdens(data) if _format(data) == "PNG" else (data, ())
    with _parsed(name, io.BytesIO(data), data) as image:
        if image.format == "PNG":
            _mend_transparency(image, depth=data[24])
        image.load()
        image.info[LEFT_OUT] = left_out
        yield image


@contextmanager
def glimpsed(path: str | Path) -> Iterator[Image.Image]:
    """The same, but only the file's beginning is read, and nothing decoded: size and EXIF are known.

    Raises:
        ImageError: as `opened`, where the beginning tells.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(START)
            file.seek(0)
            head = before_pixels(file)[0] if _format(start) == "PNG" else file
            with _parsed(str(path), head, start) as image:
                yield image
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


@contextmanager
def _parsed(name: str, file: BinaryIO, start: bytes) -> Iterator[Image.Image]:
    """What Pillow makes of a file that begins with `start`, whatever goes wrong in one sentence."""
    kind = _format(start)
    if kind is None:
        raise ImageError(f"{name} is {_describe(start)}; give a PNG, JPEG or WebP picture")
    try:
        with _QUIET, Image.open(file, formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has more than 89 megapixels; make it smaller first") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except (SdscratchError, MemoryError):
        raise
    except UnidentifiedImageError as error:  # whose words are about Python's file object
        raise ImageError(f"{name} is a {kind} picture, but truncated or damaged") from error
    # Pillow's decoders raise anything from SyntaxError to struct.error on hostile bytes.
    except Exception as error:
        raise ImageError(f"{name} is a {kind} picture, but truncated or damaged ({error})") from error


class _Quiet:
    """Pillow's remarks on odd but readable files are not shown while anyone reads one.

    Python has one list of filters for all threads: the first that comes sets it, the last that leaves puts it
    back. Each doing so for itself would leave it as some other thread had it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.readers = 0
        self.filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            self.readers += 1
            if self.readers == 1:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|sdscratch\.images)\b")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if self.readers == 0:
                self.filters.__exit__(None, None, None)


_QUIET = _Quiet()


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
            start = file.read(START)
            return start if _format(start) is None else start + file.read()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError | ValueError) -> ImageError:
    match error:
        case IsADirectoryError():
            return ImageError(f"{path} is a folder; give a PNG, JPEG or WebP picture")
        case FileNotFoundError():
            return ImageError(f"there is no picture {path}; check its name")
        case _:  # ValueError: a NUL in the name
            return ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")


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
