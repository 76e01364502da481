"""A record beside a picture: for formats and places that hold none, and as other tools leave a text there."""

from __future__ import annotations

from pathlib import Path

from sdscratch.files import atomic_write
from sdscratch.images.metadata.dialects import OWN, OWN_START
from sdscratch.images.metadata.record import Record
from sdscratch.images.metadata.texts import Texts
from sdscratch.texts import read_text

__all__ = ["sidecar_of", "texts_beside", "write_sidecar"]

LARGEST = 4 << 20  # bytes of a text that is read


def sidecar_of(picture: Path) -> Path:
    """Where a picture's record stands beside it."""
    return picture.with_suffix(".json")


def write_sidecar(picture: Path, record: Record, *, overwrite: bool = False) -> None:
    """Write the record beside a picture, as a line of JSON; where it stands there already it stays.

    Raises:
        UsageError: the name is taken by something else and `overwrite` is not set.
        SdscratchError: it cannot be written.
    """
    path, text = sidecar_of(picture), f"{record.to_json()}\n"
    if _text(path) == text:
        return
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(text.encode())


def texts_beside(picture: Path) -> Texts:
    """What stands beside a picture: our record, or the web UIs' text file, told from captions by its keys."""
    own = _text(sidecar_of(picture))
    if own.startswith(OWN_START):
        return Texts(png={OWN: own.strip()})
    return Texts(exif={"UserComment": text} if (text := _text(picture.with_suffix(".txt"))) else {})


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            return ""
        return read_text(path)
    except (OSError, ValueError):  # none there, or none of ours
        return ""
