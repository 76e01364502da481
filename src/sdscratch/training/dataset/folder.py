"""A folder of pictures with captions: what can be trained on, in a fixed order, and what cannot, and why.

Sizes come from the beginnings of the files; whether the rest of a picture is sound shows when it is decoded.
This module imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdscratch.errors import ImageError
from sdscratch.files import atomic_write
from sdscratch.images import SUFFIXES, picture_size
from sdscratch.training.dataset.captions import (
    COLUMNS,
    TABLES,
    Captions,
    Skipped,
    plain_name,
    read_captions,
    read_text,
)

__all__ = ["Folder", "Picture", "digest", "read_folder", "write_skipped"]

# Pictures of other kinds: not read, so told.
OTHERS = {".avif", ".bmp", ".gif", ".heic", ".jp2", ".jxl", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff"}
BLOCK = 1 << 20
TABLE_SUFFIXES = {".json", ".jsonl", ".csv", ".tsv", ".parquet"}  # of which some are no tables of ours


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be trained on."""

    path: str  # relative to the folder, with slashes
    caption: str
    width: int  # pixels, upright
    height: int


@dataclass(frozen=True)
class Folder:
    """What a folder holds, whatever order its file system lists it in."""

    root: Path
    pictures: tuple[Picture, ...]  # upper folders first, then by the bytes of their names
    skipped: tuple[Skipped, ...]

    def without(self, reasons: dict[str, str]) -> Folder:
        """The same without the pictures at these paths, for these reasons."""
        kept = tuple(picture for picture in self.pictures if picture.path not in reasons)
        dropped = (
            Skipped(picture.path, reasons[picture.path])
            for picture in self.pictures
            if picture.path in reasons
        )
        return Folder(self.root, kept, (*self.skipped, *dropped))

    def needs_some(self) -> Folder:
        """The folder itself.

        Raises:
            ImageError: it has no picture left.
        """
        if self.pictures:
            return self
        if not self.skipped:
            raise ImageError(f"{self.root} holds no pictures; give a folder with PNG, JPEG or WebP files")
        first = self.skipped[0]
        raise ImageError(
            f"none of the pictures in {self.root} can be trained on ({len(self.skipped)} skipped; "
            f"{first.path}: {first.reason})"
        )

    def part(self, share: float) -> tuple[Folder, Folder]:
        """The folder without a share of its pictures, and that share alone.

        Which picture goes where depends on its bytes and `share` alone: not on names, order or what else is
        there. So it stays where it is when the folder grows, and copies of a picture stay together.
        """
        kept: list[Picture] = []
        apart: list[Picture] = []
        skipped = list(self.skipped)
        for picture in self.pictures:
            try:
                fate = int(digest(self.root / picture.path)[:16], 16) / 2**64
                (apart if fate < share else kept).append(picture)
            except ImageError as error:
                skipped.append(Skipped(picture.path, str(error)))
        return Folder(self.root, tuple(kept), tuple(skipped)), Folder(self.root, tuple(apart), ())


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        ImageError: it cannot be read.
    """
    state = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                state.update(block)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    return state.hexdigest()


def read_folder(root: Path, *, captioned: bool = True, columns: Sequence[str] = COLUMNS) -> Folder:
    """List a folder of pictures, its sub-folders included; hidden files and folders are left out.

    A table's caption counts before that of a text file; `.TXT` and `Metadata.CSV` are as good as in small
    letters, and what else lies beside a picture without a caption is named. Links are followed; a folder that
    is met twice counts once.

    Args:
        captioned: Skip pictures without a caption; else theirs is empty.
        columns: The tables' columns that hold captions, the first that says something counts.

    Raises:
        ImageError: there is no such folder.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "is not there"
        raise ImageError(f"{root} {what}; give a folder of pictures")
    files, unread = _files(root)
    captions = read_captions(root, [path for path in files if _is_table(root, path)], columns)
    found = [path for path in files if _suffix(path) in SUFFIXES]
    beside = _Beside(files)
    pictures: list[Picture] = []
    skipped = [*unread, *captions.skipped, *_strangers(captions, found)]
    for path in files:
        if _suffix(path) in SUFFIXES:
            picture = _picture(root, path, captions, beside if captioned else None)
            pictures.append(picture) if isinstance(picture, Picture) else skipped.append(picture)
        elif _suffix(path) in OTHERS:
            skipped.append(Skipped(path, "it is no PNG, JPEG or WebP picture"))
    return Folder(root, tuple(pictures), tuple(skipped))


def write_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Write what was skipped to a file: a path, a tab and the reason a line.

    Raises:
        SdscratchError: it cannot be written.
    """
    text = "".join(f"{_shown(each.path)}\t{_shown(each.reason)}\n" for each in skipped)
    with atomic_write(path, overwrite=True) as file:
        file.write(text.encode())


def _shown(text: str) -> str:
    """In one line, and in UTF-8 whatever bytes a name is made of."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _is_table(root: Path, path: str) -> bool:
    return posixpath.basename(path).lower() in TABLES and (root / path).is_file()


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _files(root: Path) -> tuple[list[str], list[Skipped]]:
    """The relative paths of all files, upper folders first; and the folders that were not read."""
    found: list[str] = []
    skipped: list[Skipped] = []

    def refused(error: OSError) -> None:
        skipped.append(Skipped(_relative(root, error.filename), f"it cannot be read: {error.strerror}"))

    met: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refused):
        real = os.path.realpath(folder)
        if real in met:  # a link to a folder above would never end
            skipped.append(Skipped(_relative(root, folder), "this folder is listed under another name"))
            folders.clear()
            continue
        met.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=os.fsencode)
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: (path.count("/"), os.fsencode(path))), skipped


def _relative(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()


def _strangers(captions: Captions, found: Sequence[str]) -> Iterator[Skipped]:
    """Captions of pictures that are not there."""
    names = {plain_name(path) for path in found}
    for name, place in captions.places.items():
        if name not in names:
            yield Skipped(place, f"there is no picture {name}")


class _Beside:
    """What lies beside the pictures: their captions, and what may have been meant for one."""

    def __init__(self, files: Sequence[str]) -> None:
        self.texts: dict[str, str] = {}  # by the picture's path without suffix
        self.others: dict[str, list[str]] = {}  # by the same in small letters, up to the first dot
        self.tables: dict[str, str] = {}  # by folder
        for path in files:
            stem, suffix = posixpath.splitext(path)
            if suffix.lower() == ".txt" and (stem not in self.texts or suffix == ".txt"):
                self.texts[stem] = path
            if suffix.lower() in TABLE_SUFFIXES and posixpath.basename(path).lower() not in TABLES:
                self.tables.setdefault(posixpath.dirname(path), path)
            if suffix.lower() not in SUFFIXES:
                self.others.setdefault(_first_part(path), []).append(path)

    def hint(self, path: str) -> str:
        """What a picture without a caption has beside it, and where its caption is looked for instead."""
        name = posixpath.basename(posixpath.splitext(path)[0])
        if others := self.others.get(_first_part(path)):
            return f"; {posixpath.basename(others[0])} is not read, its caption stands in {name}.txt"
        table = self.tables.get(posixpath.dirname(path))
        if table is not None:
            return f"; {posixpath.basename(table)} is not read, a table is called {' or '.join(TABLES)}"
        return ""


def _first_part(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, name.split(".")[0].lower())


def _picture(root: Path, path: str, captions: Captions, beside: _Beside | None) -> Picture | Skipped:
    try:
        if not stat.S_ISREG((root / path).stat().st_mode):  # a pipe would be waited for without end
            return Skipped(path, "it is no regular file")
        caption = captions.texts.get(plain_name(path), "")
        if not caption and beside is not None:
            text = beside.texts.get(posixpath.splitext(path)[0])
            if text is not None and (root / text).is_file():
                caption = read_text(root / text)
            if not caption:
                return Skipped(path, f"it has no caption{'' if text else beside.hint(path)}")
        return Picture(path, caption, *picture_size(root / path))
    except OSError as error:
        return Skipped(path, f"it cannot be read: {error.strerror}")
    except (ImageError, ValueError) as error:
        return Skipped(path, str(error).removeprefix(f"{root / path} "))
