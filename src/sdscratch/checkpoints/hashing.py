"""A model's fingerprint: the first ten hex digits of a SHA-256, as the web UIs write it beside a picture.

For a file it is the file's; for a diffusers folder, that of its weight files one after the other, in the
order in which they are read. Reading 4 GB takes seconds, so results are remembered in the user's cache
folder until a file's size or time changes. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sdscratch.checkpoints.places import cache_folder
from sdscratch.errors import CheckpointError, SdscratchError
from sdscratch.files import atomic_write

__all__ = ["digest_files", "hash_files"]

DIGITS = 10
BLOCK = 1 << 20
REMEMBERED = 1000  # files; the oldest are forgotten


def hash_files(paths: Iterable[Path]) -> str:
    """The fingerprint of files read one after the other: ten digits, which CivitAI calls AutoV2.

    Raises:
        CheckpointError: one cannot be read.
    """
    return digest_files(paths)[:DIGITS]


def digest_files(paths: Iterable[Path]) -> str:
    """The whole SHA-256 of files read one after the other, in 64 digits.

    Raises:
        CheckpointError: one cannot be read.
    """
    paths = list(paths)
    try:
        key = json.dumps([_identity(path) for path in paths])
        known = _remembered()
        if key not in known:
            known[key] = _hash(paths)
            _remember(known)
        return known[key]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from None


def _identity(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
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


def _remember(known: dict[str, str]) -> None:
    path = _cache()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite=True) as file:
            file.write(json.dumps(dict(list(known.items())[-REMEMBERED:])).encode())
    except (OSError, SdscratchError):  # no cache, no harm
        return
