"""What of a plan is done, beside the pictures: a line a picture, written after it, flushed to the disk.

Whatever ends a run, the next one reads what is whole in the journal and draws what is missing. A line that
was being written when the power went is no line. No torch.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any, Self

from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write, make_folder, write_error

if sys.platform != "win32":
    import fcntl

__all__ = [
    "FAILED",
    "Journal",
    "Shard",
    "done_names",
    "held",
    "picture_key",
    "settled_names",
    "settled_seed",
    "wait_for_others",
]

RUN = "run.json"
FAILED = "failed.jsonl"


class Shard:
    """Which of a plan's jobs are this process's: job n belongs to shard n mod `count`, whatever dies.

    Args:
        index: from 0.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count

    def has(self, job: int) -> bool:
        """Whether a job, counted from 1, is its own."""
        return (job - 1) % self.count == self.index

    def named(self, stem: str) -> str:
        """A file that no other shard writes."""
        part = f"-{self.index + 1}-of-{self.count}" if self.count > 1 else ""
        return f"{stem}{part}.jsonl"


class Journal:
    """The journal of one run or shard, open for appending; a context manager."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.path = folder / shard.named("journal")
        self.done = dict(_entries(folder))  # the key of each picture that is there → its file's name
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        try:
            whole = _whole_length(self.path)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(whole)  # without a line that was cut off
        except OSError as error:
            raise write_error(self.path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add_failed(self, name: str, job: int) -> None:
        """Note that a picture could not be drawn, for the contact sheet; the next run tries it again.

        Raises:
            SdscratchError: it cannot be written.
        """
        assert self._file is not None
        append(self._file, self.path, {"failed": name, "job": job})

    def add(self, key: str, name: str, job: int) -> None:
        """Note that a picture is there; it is on the disk when this returns.

        Raises:
            SdscratchError: it cannot be written.
        """
        assert self._file is not None
        append(self._file, self.path, {"key": key, "name": name, "job": job})
        self.done[key] = name


def append(file: FileIO, path: Path, record: Mapping[str, Any]) -> None:
    """A line more in an unbuffered file, on the disk when this returns; all of it, or none.

    Raises:
        SdscratchError: it cannot be written.
    """
    rest = memoryview(json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
    start = os.fstat(file.fileno()).st_size
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            file.truncate(start)
        raise write_error(path, error) from error


def _whole_length(path: Path) -> int:
    """Bytes up to the last line end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            back = 0
            while back < size:
                back = min(size, back + 4096)
                file.seek(size - back)
                cut = file.read(back).rfind(b"\n")
                if cut >= 0:
                    return size - back + cut + 1
    except FileNotFoundError:
        pass
    return 0


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """What all shards' journals say is done, and is there."""
    for record in _records(folder):
        with suppress(KeyError, ValueError):  # ValueError: a NUL in a name
            if (folder / str(record["name"])).is_file():
                yield str(record["key"]), str(record["name"])


def done_names(folder: Path) -> set[str]:
    """The pictures that are there, by their files' names."""
    return {name for _, name in _entries(folder)}


def settled_names(folder: Path) -> set[str]:
    """The pictures that are there or have failed, by their files' names, whichever shard's."""
    failed = {str(record["failed"]) for record in _records(folder) if "failed" in record}
    return failed | {name for _, name in _entries(folder)}


def _records(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Every whole line of all shards' journals."""
    try:
        journals = [
            path for path in folder.iterdir() if re.fullmatch(r"journal(-\d+-of-\d+)?\.jsonl", path.name)
        ]
        for path in sorted(journals):
            with path.open("rb") as file:
                for line in file:
                    with suppress(ValueError, RecursionError):  # a damaged line says nothing
                        record = json.loads(line)
                        if isinstance(record, dict) and line.endswith(b"\n"):
                            yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise SdscratchError(f"the journals in {folder} cannot be read: {error.strerror}") from None


def picture_key(record: Mapping[str, Any]) -> str:
    """What tells one picture of a plan from all others: all that it depends on, in 32 hex digits."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return sha256(text.encode()).hexdigest()[:32]


def settled_seed(folder: Path) -> int:
    """The number that seeds come from where nobody asks for one: chance at the first run, then always that.

    Shards that begin at once agree: one of them writes it.

    Raises:
        SdscratchError: the folder cannot be made or written, or holds something else of that name.
    """
    make_folder(folder)
    path = folder / RUN
    if not path.exists():
        try:
            with atomic_write(path) as file:
                file.write(json.dumps({"seed": secrets.randbelow(2**32)}).encode() + b"\n")
        except SdscratchError:
            if not path.exists():  # else another shard was faster
                raise
    try:
        seed = json.loads(path.read_bytes())["seed"]
        if type(seed) is not int:
            raise ValueError
        return seed
    except (OSError, ValueError, KeyError, TypeError):
        raise SdscratchError(f"{path} is not what a run leaves there; choose another folder") from None


def wait_for_others(folder: Path, shard: Shard) -> None:
    """Wait until no other shard that has begun is at work."""
    for index in range(shard.count):
        path = folder / f".{Shard(index, shard.count).named('lock')}"
        if index == shard.index or sys.platform == "win32" or not path.exists():
            continue
        with suppress(OSError), path.open("rb+") as file:  # a file system without locks: nobody is waited for
            fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def held(folder: Path, shard: Shard) -> Iterator[None]:
    """Keep other runs of the same shard out of a folder meanwhile.

    Raises:
        SdscratchError: another one is at work there.
    """
    if sys.platform == "win32":
        yield
        return
    path = folder / f".{shard.named('lock')}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SdscratchError(
                f"another run is at work in {folder}; wait for it, or choose another --output"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
