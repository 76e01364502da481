"""EXIF data as it is written here: a description and a comment, each of the type that the standard asks for.

Pillow (13.0) gives a UserComment that is bytes the type BYTE; EXIF 2.3 (4.6.5) says UNDEFINED, and readers
that hold to it find nothing else.
"""

from __future__ import annotations

import struct

__all__ = ["EXIF_START", "exif_data"]

EXIF_START = b"Exif\0\0"
IMAGE_DESCRIPTION, EXIF_IFD, USER_COMMENT = 0x010E, 0x8769, 0x9286
ASCII, LONG, UNDEFINED = 2, 4, 7  # TIFF 6.0's types
ENTRY = struct.Struct(">HHL4s")
FIRST_IFD = 8

Entry = tuple[int, int, bytes]  # tag, type, value


def exif_data(description: str, comment: str | None) -> bytes:
    """ImageDescription in ASCII and, where there is one, UserComment in UTF-16, big-endian as the web UIs do.

    TIFF's structure, big-endian: a header, a directory with its longer values, and the EXIF directory.
    """
    entries: list[Entry] = [(IMAGE_DESCRIPTION, ASCII, description.encode("ascii") + b"\0")]
    start = EXIF_START + b"MM\0*" + struct.pack(">L", FIRST_IFD)
    if comment is None:
        return start + _directory(entries, FIRST_IFD)
    pointer: Entry = (EXIF_IFD, LONG, bytes(4))
    below = FIRST_IFD + len(_directory([*entries, pointer], FIRST_IFD))
    entries.append((EXIF_IFD, LONG, struct.pack(">L", below)))
    value = b"UNICODE\0" + comment.encode("utf-16-be")
    return start + _directory(entries, FIRST_IFD) + _directory([(USER_COMMENT, UNDEFINED, value)], below)


def _directory(entries: list[Entry], place: int) -> bytes:
    """A directory that begins at `place`; values of more than four bytes follow it, at even places."""
    after = place + 2 + len(entries) * ENTRY.size + 4
    head, tail = struct.pack(">H", len(entries)), b""
    for tag, kind, value in entries:
        count = len(value) // 4 if kind == LONG else len(value)
        short = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(">L", after + len(tail))
        if len(value) > 4:
            tail += value + bytes(len(value) % 2)
        head += ENTRY.pack(tag, kind, count, short)
    return head + bytes(4) + tail
