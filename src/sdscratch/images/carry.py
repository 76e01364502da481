"""How the two records ride in a file: PNG text, or EXIF in JPEG and WebP; both directions side by side."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from sdscratch.images.exif import exif_data
from sdscratch.images.metadata.dialects import Records, records_in
from sdscratch.images.metadata.extras import Extras
from sdscratch.images.metadata.record import Record
from sdscratch.images.metadata.texts import texts_of
from sdscratch.images.open import opened
from sdscratch.images.sidecar import texts_beside

__all__ = ["Records", "exif_bytes", "png_text", "read_records"]

RECORD_KEY, INFOTEXT_KEY, EXTRAS_KEY = "sdscratch", "parameters", "extras"  # PNG text
MAX_JPEG_EXIF = 65_533 - 6  # one segment, less its length and "Exif\0\0"


def png_text(record: Record | Extras) -> PngInfo:
    """Both records as PNG text chunks; of a picture that was enlarged alone, what was said of it before."""
    text = PngInfo()
    if isinstance(record, Extras):
        if record.infotext is not None:
            text.add_text(INFOTEXT_KEY, record.infotext)
        text.add_text(EXTRAS_KEY, record.text())
        return text
    text.add_text(INFOTEXT_KEY, record.infotext())  # iTXt where Latin-1 does not suffice
    text.add_text(RECORD_KEY, record.to_json())
    return text


def exif_bytes(record: Record | Extras, kind: str) -> bytes:
    """Both records as EXIF data; into JPEG's one segment only as many as fit."""
    if isinstance(record, Extras):
        data = exif_data("", record.whole())
        return data if kind != "JPEG" or len(data) <= MAX_JPEG_EXIF else b""
    for comment in (record.infotext(), None):
        data = exif_data(record.to_json(), comment)
        if kind != "JPEG" or len(data) <= MAX_JPEG_EXIF:
            return data
    return b""


def read_records(path: str | Path) -> Records:
    """Read what a picture says about how it was made, or a file beside it: our own record, or another tool's.

    Raises:
        ImageError: as `read_picture`, or a record of ours that this version cannot read.
    """
    with opened(path) as image:
        found = records_in(texts_of(image))
    if found.tool is not None or str(path) == "-":
        return found
    beside = records_in(texts_beside(Path(path)))
    return found if beside.tool is None else beside
