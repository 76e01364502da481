"""How the two records ride in a file: PNG text, or EXIF in JPEG and WebP; both directions side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdscratch.images.metadata import Infotext, Record, parse_infotext
from sdscratch.images.open import opened

__all__ = ["Records", "exif_bytes", "png_text", "read_records"]

RECORD_KEY, INFOTEXT_KEY = "sdscratch", "parameters"  # PNG text
IMAGE_DESCRIPTION, USER_COMMENT = 0x010E, 0x9286  # EXIF tags: our record, the infotext
EXIF_IFD = 0x8769
MAX_JPEG_EXIF = 65_533 - 6  # one segment, less its length and "Exif\0\0"


@dataclass(frozen=True)
class Records:
    """What a picture says about how it was made: our own record, or else the web UIs' text, or neither."""

    record: Record | None = None
    infotext: Infotext | None = None


def png_text(record: Record) -> PngInfo:
    """Both records as PNG text chunks."""
    text = PngInfo()
    text.add_text(INFOTEXT_KEY, record.infotext())  # iTXt where Latin-1 does not suffice
    text.add_text(RECORD_KEY, record.to_json())
    return text


def exif_bytes(record: Record, kind: str) -> bytes:
    """Both records as EXIF data; into JPEG's one segment only as many as fit."""
    for with_infotext in (True, False):
        exif = Image.Exif()
        exif[IMAGE_DESCRIPTION] = record.to_json()
        if with_infotext:
            # big-endian, as the web UIs write it
            comment = b"UNICODE\0" + record.infotext().encode("utf-16-be")
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
        data = exif.tobytes()
        if kind != "JPEG" or len(data) <= MAX_JPEG_EXIF:
            return data
    return b""


def read_records(path: str | Path) -> Records:
    """Read what a picture says about how it was made: our own record, else the web UIs' text.

    Raises:
        ImageError: as `read_picture`, or a record of ours that this version cannot read.
    """
    with opened(path) as image:
        if image.format == "PNG":
            own, text = (image.info.get(key) for key in (RECORD_KEY, INFOTEXT_KEY))
        else:
            exif = image.getexif()
            own = exif.get(IMAGE_DESCRIPTION)
            text = _user_comment(exif.get_ifd(EXIF_IFD).get(USER_COMMENT))
        if isinstance(own, str) and own.startswith('{"sdscratch":'):  # cameras write descriptions too
            return Records(record=Record.from_json(own))
        return Records(infotext=parse_infotext(text)) if isinstance(text, str) else Records()


def _user_comment(value: object) -> str | None:
    """EXIF 2.3, 4.6.5: eight bytes name the encoding; the byte order of UNICODE is left open."""
    if not isinstance(value, bytes):
        return None
    code, text = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        # The line of parameters is ASCII, so its zero bytes tell the order.
        big = text[::2].count(0) >= text[1::2].count(0)
        return text.decode("utf-16-be" if big else "utf-16-le", "replace")
    return text.decode("ascii", "replace") if code.startswith(b"ASCII") else None
