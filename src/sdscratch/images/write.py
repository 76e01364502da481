"""Pictures that go out: complete or absent, and byte for byte the same for the same picture and record."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import atomic_write, write_stream
from sdscratch.images.carry import exif_bytes, png_text
from sdscratch.images.metadata.extras import Extras
from sdscratch.images.metadata.record import Record

__all__ = ["SUFFIXES", "as_kept", "check_suffix", "is_saved", "save_picture"]

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY: dict[
    str, dict[str, object]
] = {  # near the best of each: the model's work should not be lost to the last step
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
}

LOSSLESS: dict[str, object] = {"lossless": True, "exact": True, "quality": 100, "method": 4}


def save_picture(
    image: Image.Image,
    destination: Path | BinaryIO,
    record: Record | Extras | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write an RGB or RGBA picture and its record; the suffix picks PNG, JPEG or WebP, a stream gets PNG.

    PNG holds the record under the text key `sdscratch` and the infotext under `parameters`; JPEG and WebP
    hold them in EXIF, as ImageDescription and UserComment. JPEG has 64 KB for both: what does not fit is left
    out, the infotext first. JPEG and WebP are lossy, at quality 95.

    Raises:
        UsageError: an unknown suffix, or the file exists and `overwrite` is not set.
        SdscratchError: it cannot be written; nothing is left behind.
    """
    if not isinstance(destination, Path):
        write_stream(destination, _encode(image, "PNG", record))
        return
    data = _encode(image, check_suffix(destination), record)
    with atomic_write(destination, overwrite=overwrite) as file:
        file.write(data)


def is_saved(image: Image.Image, path: Path, record: Record | None) -> bool:
    """Whether a file is there that holds the very bytes that `save_picture` would write."""
    try:
        return path.read_bytes() == _encode(image, check_suffix(path), record)
    except OSError:
        return False


def check_suffix(path: Path) -> str:
    """The format that a name's suffix means.

    Raises:
        UsageError: an unknown suffix.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path} has no suffix of a picture; end it in {', '.join(SUFFIXES)}")
    return kind


def as_kept(image: Image.Image, kind: str) -> Image.Image:
    """What is left of a picture's pixels when it is written in a format, and read again."""
    with Image.open(io.BytesIO(_encode(image, kind, None)), formats=[kind]) as kept:
        return kept.copy()


def _encode(image: Image.Image, kind: str, record: Record | Extras | None) -> bytes:
    quality = QUALITY[kind]
    if isinstance(record, Record) and record.mask is not None and record.mask.kept:
        if kind == "WEBP":
            quality = LOSSLESS  # what lies outside a mask is not to change
        elif kind == "JPEG":
            record = replace(record, mask=replace(record.mask, kept=False))
    bare = image.copy()
    bare.info = {}  # Pillow would write what it remembers of the file that the picture came from
    extra: dict[str, object] = {}
    if record is not None:
        extra = {"pnginfo": png_text(record)} if kind == "PNG" else {"exif": exif_bytes(record, kind)}
    buffer = io.BytesIO()
    try:
        bare.save(buffer, kind, **quality, **extra)
    except (OSError, ValueError) as error:  # a side longer than the format can say
        size = f"{image.width}x{image.height}"
        raise SdscratchError(f"cannot write {size} pixels as {kind} ({error}); choose PNG") from error
    return buffer.getvalue()
