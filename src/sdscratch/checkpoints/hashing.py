"""Files' fingerprints: the first ten hex digits of a SHA-256, as the web UIs write it beside a picture.

For a file it is the file's; for a diffusers folder, that of its weight files one after the other, in the
order in which they are read. Reading 4 GB takes seconds, so results are remembered in the user's cache
folder until a file's size or time changes; processes that do so at once lose nothing of each other's. This
module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from sdscratch.checkpoints.places import cache_folder
from sdscratch.errors import CheckpointError, SdscratchError
from sdscratch.files import atomic_write, locked

__all__ = [
    "AUTOV2",
    "AUTOV3",
    "autov3",
    "digest_files",
    "hash_files",
    "is_known",
    "old_hash",
    "tensors_digest",
]

AUTOV2, AUTOV3 = 10, 12  # hex digits, as CivitAI calls and counts them
BLOCK = 1 << 20
REMEMBERED = 20_000  # digests; the oldest are forgotten
TENSORS = "tensors"  # marks what was found of a file without its header
OLD_START, OLD_SIZE, OLD_DIGITS = 0x100000, 0x10000, 8  # the web UIs' hash of models until 2022
LARGEST_HEADER = 100 << 20  # bytes: the safetensors library's own line


def hash_files(paths: Iterable[Path]) -> str:
    """The fingerprint of files read one after the other: ten digits, which CivitAI calls AutoV2.

    Raises:
        CheckpointError: one cannot be read.
    """
    return digest_files(paths)[:AUTOV2]


def digest_files(paths: Iterable[Path]) -> str:
    """The whole SHA-256 of files read one after the other, in 64 digits.

    Raises:
        CheckpointError: one cannot be read.
    """
    return _of(list(paths), "", 0)


def tensors_digest(path: Path) -> str | None:
    """The whole SHA-256 of a safetensors file after its header; None for any other file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            length, start = int.from_bytes(file.read(8), "little"), file.read(1)
        if start != b"{" or length > min(path.stat().st_size, LARGEST_HEADER):
            return None
    except OSError as error:
        raise _unreadable(error) from None
    return _of([path], TENSORS, 8 + length)


def autov3(path: Path) -> str | None:
    """Twelve digits of `tensors_digest`, by which CivitAI knows LoRAs; training's notes do not change it.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest = tensors_digest(path)
    return None if digest is None else digest[:AUTOV3]


def old_hash(path: Path) -> str | None:
    """The eight digits that the web UIs knew a model by until 2022: of 64 KB behind its first megabyte."""
    try:
        with path.open("rb") as file:
            file.seek(OLD_START)
            return hashlib.sha256(file.read(OLD_SIZE)).hexdigest()[:OLD_DIGITS]
    except OSError:  # a folder, above all
        return None


def is_known(path: Path) -> bool:
    """Whether a file's digest is remembered, so that asking for it costs nothing."""
    try:
        return _key([path], "") in _remembered()
    except OSError:
        return False


def _of(paths: list[Path], what: str, start: int) -> str:
    """A digest, remembered or made now."""
    try:
        key = _key(paths, what)
        found = _remembered().get(key)
        if found is None:
            found = _hash(paths, start)
            _remember(key, found)
        return found
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> CheckpointError:
    return CheckpointError(f"{error.filename} cannot be read: {error.strerror}")


def _key(paths: list[Path], what: str) -> str:
    """What a digest is remembered by: it holds no longer when a file's size or time is another."""
    return json.dumps([*([what] if what else []), *map(_identity, paths)])


def _identity(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns


def _hash(paths: list[Path], start: int) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _cache() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "hashes.json"


def _remembered() -> dict[str, str]:
    """What earlier runs found; a cache that is not there or cannot be read is an empty one."""
    path = _cache()
    try:
        record = json.loads(path.read_text()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and all(isinstance(v, str) for v in record.values()) else {}


def _remember(key: str, digest: str) -> None:
    """Add a digest to what is remembered by now, perhaps by other processes too."""
    path = _cache()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # without locks, a digest may have to be found again
        with locked(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT):
            known = {**_remembered(), key: digest}
            with atomic_write(path, overwrite=True) as file:
                file.write(json.dumps(dict(list(known.items())[-REMEMBERED:])).encode())
    except (OSError, SdscratchError):  # no cache, no harm
        return
