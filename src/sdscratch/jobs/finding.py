"""Files that a picture names, found on this machine: by any of their hashes, then by name. No torch.

Hashing gigabytes takes a while, so what has the right name is looked at first, then what is remembered
(`checkpoints.hashing`), then the smaller files before the larger ones; it ends at the first that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sdscratch.addons.control_files import opened_files
from sdscratch.checkpoints.hashing import AUTOV2, digest_files, is_known, old_hash, tensors_digest
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.places import EMBEDDED, find_local, kept
from sdscratch.errors import ImageError, SdscratchError, UsageError
from sdscratch.images import picture_hash, read_whole
from sdscratch.images.hints import read_hint
from sdscratch.show import printable
from sdscratch.tensorfiles.reader import open_tensors

__all__ = ["Found", "Library", "Wanted", "find_picture", "named_only"]

Kind = Literal["model", "lora", "embedding", "vae", "control", "upscaler"]

SUFFIXES = {
    "model": {".safetensors", ".ckpt", ".pt"},
    "vae": {".safetensors", ".ckpt", ".pt", ".bin"},
    "lora": {".safetensors", ".pt", ".bin", ".ckpt"},
    "embedding": {".safetensors", ".pt", ".bin", ".png", ".webp"},
    "control": {".safetensors", ".pth", ".ckpt", ".pt", ".bin"},
    "upscaler": {".safetensors", ".pth", ".pt", ".ckpt"},
}
FOLDERS = {"model": "model_index.json", "vae": "model_index.json", "control": "config.json"}  # what tells one
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
SSHS = "sshs_model_hash"  # what training wrote of itself, and the web UIs believe
LEAST_DIGITS = 8

Bar = Callable[[int], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True)
class Wanted:
    """A file as a picture names it.

    Attributes:
        name: without folders and suffix, perhaps empty.
        hashes: hex digits, in lower case: AutoV2, AutoV3, a whole SHA-256, or the web UIs' old eight.
    """

    kind: Kind
    name: str
    hashes: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f" ({', '.join(self.hashes)})" if self.hashes else ""
        return f"{self.kind} {printable(self.name) or 'without a name'}{told}"


@dataclass(frozen=True)
class Found:
    """Where it is, and what it was known by."""

    path: str  # a file, a folder, or "default"
    by: Literal["hash", "name"]


class Library:
    """The files of this machine that pictures are drawn with.

    Args:
        look_in: folders to look in besides the usual ones, and everywhere below them.
        bar: shows that files of so many bytes are read for the first time; takes how many were.
    """

    def __init__(self, look_in: Sequence[Path] = (), bar: Bar = lambda total: nullcontext(unseen)) -> None:
        self.look_in = tuple(look_in)
        self.bar = bar
        self.find = cache(self._find)

    def _find(self, wanted: Wanted) -> Found | None:
        """The file that is meant; None where there is none."""
        files = self.files(wanted.kind)
        named = [path for path in files if path.stem.casefold() == wanted.name.casefold()]
        if wanted.hashes:
            others = sorted(
                (path for path in files if path not in named),
                key=lambda path: (not is_known(path), size_of(path)),
            )
            for path in self._read([*named, *others]):
                if self.fits(path, wanted):
                    return Found(self._spelled(path), "hash")
        return Found(self._spelled(named[0]), "name") if named else None

    def _read(self, paths: list[Path]) -> Iterator[Path]:
        """Every one, behind a bar from the first that must be read for it."""
        with ExitStack() as stack:
            advance, done = None, 0
            for index, path in enumerate(paths):
                if advance is None and path.is_file() and not is_known(path):
                    advance = stack.enter_context(self.bar(sum(map(size_of, paths[index:]))))
                yield path
                if advance is not None:
                    done += size_of(path)
                    advance(done)

    def files(self, kind: Kind) -> list[Path]:
        """Every file of a kind, the nearest folders first; among models diffusers' folders, too."""
        found: dict[Path, None] = {}
        for folder in (*kept(kind), *self.look_in):
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if path.suffix.lower() in SUFFIXES[kind] and path.is_file() and not _in_model(path, folder):
                    found[path] = None
                elif path.name == FOLDERS.get(kind):
                    found[path.parent] = None
        if kind == "model" and (embedded := _embedded()) is not None:
            found[embedded] = None
        return list(found)

    def fits(self, path: Path, wanted: Wanted) -> bool:
        """Whether a file has one of the hashes."""
        try:
            return any(
                self._is(path, digits.lower()) for digits in wanted.hashes if len(digits) >= LEAST_DIGITS
            )
        except SdscratchError:  # unreadable, or no model: another one may be it
            return False

    def _is(self, path: Path, digits: str) -> bool:
        if path.is_dir():
            whole = (path / "model_index.json").exists()
            own = open_model(path).hash() if whole else opened_files(path).hash()
            return own.startswith(digits[:AUTOV2])
        if len(digits) == LEAST_DIGITS:
            return old_hash(path) == digits
        if digest_files([path]).startswith(digits):
            return True
        tensors = tensors_digest(path)
        return tensors is not None and (tensors.startswith(digits) or _says(path).startswith(digits))

    def _spelled(self, path: Path) -> str:
        return EMBEDDED if path == _embedded() else str(path)


def _says(path: Path) -> str:
    """The hash that a safetensors file says it has."""
    return open_tensors(path).metadata.get(SSHS, "").lower()


def _in_model(path: Path, folder: Path) -> bool:
    """Whether a file is a part of a diffusers folder."""
    return path.parent != folder and (path.parent.parent / "model_index.json").is_file()


def _embedded() -> Path | None:
    try:
        return find_local(EMBEDDED)
    except SdscratchError:
        return None


def unseen(done: float) -> None:
    """Where no bar is shown."""


def size_of(path: Path) -> int:
    """Bytes; of a folder none, for its files are small or known."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def named_only(wanted: Wanted, found: Found) -> str | None:
    """What is to be said of a file that was known by its name alone, though its hash is told."""
    if found.by == "hash" or not wanted.hashes:
        return None
    return f"{wanted} was found by name alone; the file here has another hash"


def find_picture(
    digest: str,
    folders: Iterable[Path],
    background: str = "white",
    preprocess: str | None = None,
    *,
    whole: bool = False,
) -> Path | None:
    """The picture whose pixels have this hash, as `picture_hash` counts it; None where it is nowhere.

    Args:
        folders: looked in one after the other, not below.
        background: the colour under transparent parts.
        preprocess: of a control's hint, which may keep them apart (`images.hints`).
        whole: transparency is counted, not laid over a colour: of masks, and of what they repaint.
    """
    for path in _pictures(folders):
        try:
            found = read_whole(path) if whole else read_hint(str(path), preprocess, background)
            if picture_hash(found) == digest:
                return path
        except (ImageError, UsageError):  # not the one
            continue
    return None


def _pictures(folders: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in PICTURES and path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path
