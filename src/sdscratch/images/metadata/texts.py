"""The texts that a picture carries, by the names that PNG and EXIF give them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape

from PIL import Image

from sdscratch.images.metadata.hidden import hidden_text

__all__ = ["EXIF_IFD", "LEFT_OUT", "Texts", "texts_of"]

EXIF_IFD = 0x8769
TAGS = {  # EXIF 2.3 and Windows' own: those that tools write how a picture was made into
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9C9C: "XPComment",
}
SUB_TAGS = {0x9286: "UserComment", 0x927C: "MakerNote"}
WINDOWS = "XPComment"  # which is in UTF-16
LEFT_OUT = "sdscratch.left_out"  # where `opened` says what it did not hand on
XMP = "XML:com.adobe.xmp"
XMP_COMMENT = re.compile(r"<exif:UserComment>.{0,200}?<rdf:li[^>]{0,200}>(.*?)</rdf:li>", re.DOTALL)
XMP_ATTRIBUTE = re.compile(r'exif:UserComment="([^"]*)"')


@dataclass(frozen=True)
class Texts:
    """All that a picture says in words."""

    png: Mapping[str, str] = field(default_factory=dict)  # by PNG's keywords
    exif: Mapping[str, str] = field(default_factory=dict)  # by EXIF's names
    xmp: str = ""  # the UserComment in it, where Draw Things writes
    hidden: str = ""  # in the lowest bits of the pixels
    left_out: tuple[str, ...] = ()  # what was not read, and why

    def named(self) -> Iterator[tuple[str, str]]:
        """Every text with its name, for who wants to see those that no tool is known by."""
        yield from ((name, text) for name, text in self.png.items() if text)
        yield from ((name, text) for name, text in self.exif.items() if text)
        if self.xmp:
            yield "XMP UserComment", self.xmp
        if self.hidden:
            yield "hidden in the pixels", self.hidden


def texts_of(image: Image.Image) -> Texts:
    """What an open picture says in words; what cannot be read is named in `left_out`, never fatal."""
    left_out = list(image.info.get(LEFT_OUT, ()))
    png: dict[str, str] = {}
    if image.format == "PNG":
        for name, text in image.info.items():
            if isinstance(name, str) and isinstance(text, str) and name != XMP:
                png[name] = _repaired(text)
    try:
        exif = dict(_exif(image))
    except Exception:  # Pillow raises anything here, and the picture itself is sound
        exif = {}
        left_out.append("EXIF data that make no sense")
    return Texts(png, exif, _xmp_comment(image), hidden_text(image), tuple(left_out))


def _repaired(text: str) -> str:
    """UTF-8 in a Latin-1 chunk, as stable-diffusion.cpp writes it; elsewhere Latin-1 is hardly ever UTF-8."""
    if text.isascii() or hasattr(text, "lang"):  # Pillow's mark of an iTXt, which is UTF-8
        return str(text)
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _exif(image: Image.Image) -> Iterator[tuple[str, str]]:
    exif = image.getexif()
    own = exif.get_ifd(EXIF_IFD)
    values = [(TAGS[tag], exif[tag]) for tag in TAGS if tag in exif]
    values += [(SUB_TAGS[tag], own[tag]) for tag in SUB_TAGS if tag in own]
    for name, value in values:
        if isinstance(value, tuple) and all(isinstance(part, int) for part in value):
            value = bytes(part & 255 for part in value)
        text = _decoded(name, value) if isinstance(value, bytes) else value
        if isinstance(text, str):
            yield name, text.rstrip("\0")
    comment = image.info.get("comment")  # JPEG's own
    if isinstance(comment, bytes):
        yield "comment", comment.decode(errors="replace")


def _decoded(name: str, value: bytes) -> str:
    """EXIF 2.3, 4.6.5: eight bytes name the encoding of a UserComment; the byte order of UNICODE is open."""
    if name == WINDOWS:
        return value.decode("utf-16-le", "replace")
    if name == "UserComment":
        code, rest = value[:8], value[8:]
        if code.startswith(b"UNICODE"):
            return _utf_16(rest)
        value = rest if code.startswith(b"ASCII") or code == bytes(8) else value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _utf_16(text: bytes) -> str:
    """In either order; the line of parameters is ASCII, so its zero bytes tell. Some write UTF-8 there."""
    if text.startswith((b"\xfe\xff", b"\xff\xfe")):
        return text.decode("utf-16", "replace")
    high, low = text[::2].count(0), text[1::2].count(0)
    if high == low == 0:
        try:
            return text.decode()
        except UnicodeDecodeError:
            pass
    return text.decode("utf-16-be" if high >= low else "utf-16-le", "replace")


def _xmp_comment(image: Image.Image) -> str:
    raw = image.info.get(XMP) or image.info.get("xmp") or ""
    xmp = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
    found = XMP_COMMENT.search(xmp) or XMP_ATTRIBUTE.search(xmp)
    return unescape(found[1]).strip() if found else ""
