"""Files that are complete or absent: how everything this package makes reaches the disk.

A file is written under a hidden temporary name in the folder where it will live, flushed and synced, and only
then given its own name. Whatever goes wrong before, Ctrl-C and a full disk included, nothing stays behind.
Only a process that is killed cannot clear up: the hidden file that it leaves is removed by the next one that
writes into that folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sdscratch.errors import SdscratchError, UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["atomic_write", "locked", "make_folder", "refuse_existing", "write_error", "write_stream"]

REASONS = {
    errno.ENOSPC: "no space is left on its disk; free some, or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another place",
    errno.EACCES: "permission is denied; choose another place",
    errno.EPERM: "permission is denied; choose another place",
    errno.EROFS: "its file system is read-only; choose another place",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "a part of its path is a file, not a folder; choose another place",
    errno.EEXIST: "a part of its path is a file, not a folder; choose another place",
    errno.EISDIR: "a folder has that name; choose another",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EPIPE: "the program that reads it has ended",
}

PART = ".sdscratch-{}.part"  # a file that is being written, locked by whoever writes it
_swept: set[Path] = set()  # folders that were looked through for what killed processes left

# File systems without hard links (FAT, some network shares) answer os.link with one of these.
NO_HARD_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}


def write_error(name: str | Path, error: OSError) -> SdscratchError:
    """The sentence for an operating system's refusal to write `name`."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)
    return SdscratchError(f"cannot write {name}: {reason}")


def refuse_existing(path: Path) -> None:
    """Refuse a name that is taken.

    Raises:
        UsageError: something has that name, a dangling link included.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already; give --overwrite to replace it, or choose another name")


def make_folder(folder: Path) -> None:
    """Make `folder`, and those above it, where missing, and prove that a file can be made in it.

    Permissions alone do not tell (root, read-only mounts, access lists): a file is made, and removed again.

    Raises:
        SdscratchError: it cannot be made, or nothing can be written into it.
    """
    probe = _temporary_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        probe.open("xb").close()
    except OSError as error:
        raise write_error(f"into {folder}", error) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def write_stream(stream: BinaryIO, data: bytes) -> None:
    """Write all of `data` to standard output.

    Raises:
        SdscratchError: it cannot be written.
    """
    # Past the buffer: what it cannot write, it would try to write once more when Python ends, and fail again.
    raw = getattr(stream, "raw", stream)
    rest = memoryview(data)
    try:
        stream.flush()
        while rest:
            rest = rest[raw.write(rest) :]
    except OSError as error:
        raise write_error("to standard output", error) from error


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that has its name only once it is complete; `.name` is its temporary path.

    The file can be read back through the same object. It gets the permissions that the umask leaves. With
    `overwrite` a symbolic link is followed: what it points to is replaced. Without, the name is taken in one
    step that fails if another process took it first.

    Raises:
        UsageError: the name is taken and `overwrite` is not set.
        SdscratchError: the operating system refuses (no space, no permission, …), with the reason in words.
    """
    if not overwrite:
        refuse_existing(path)
    final = Path(os.path.realpath(path)) if overwrite else path
    temporary, file = _new_part(final.parent, path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(final)
        else:
            _rename_if_free(temporary, final)
        _sync_folder(final.parent)
    except OSError as error:
        # An error about some other file (one that the caller reads from) is not ours to explain.
        if error.filename not in (None, str(temporary), str(final)):
            raise
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


@contextmanager
def locked(path: Path, flags: int = os.O_RDONLY) -> Iterator[None]:
    """Let one process at a time into the context, by a lock on a file or a folder.

    Where a file system or a system has no locks, nobody waits.

    Args:
        flags: how the file is opened.

    Raises:
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":  # where a folder cannot be opened
        yield
        return
    descriptor = os.open(path, flags, 0o666)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _temporary_name(folder: Path) -> Path:
    # Not made from the final name, which may already be as long as a name can be.
    return folder / PART.format(secrets.token_hex(8))


def _new_part(folder: Path, path: Path) -> tuple[Path, BinaryIO]:
    """A file to write into, in the folder where `path` will be, locked until it is closed.

    Raises:
        SdscratchError: the operating system refuses.
    """
    _sweep(folder)
    try:
        while True:
            temporary = _temporary_name(folder)
            file = temporary.open("x+b")
            _lock(file.fileno())
            if temporary.exists():
                return temporary, file
            file.close()  # another process came between the two and took it for one that was left
    except OSError as error:
        raise write_error(path, error) from error


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, once a process: the files that nobody has locked.

    Where there are no locks (Windows, some network file systems) they stay.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    for path in folder.glob(PART.format("*")):
        with suppress(OSError), path.open("r+b") as file:
            if _lock(file.fileno(), wait=False):
                path.unlink()


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock a file until it is closed, or its process ends; False where that cannot be."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _rename_if_free(temporary: Path, final: Path) -> None:
    """Give `temporary` the name `final` unless that is taken; os.rename would replace a file silently."""
    try:
        final.hardlink_to(temporary)
    except OSError as error:
        if error.errno in NO_HARD_LINKS:
            _rename_over_placeholder(temporary, final)
        elif error.errno == errno.EEXIST:
            refuse_existing(final)
            raise
        else:
            raise


def _rename_over_placeholder(temporary: Path, final: Path) -> None:
    """The same where hard links do not exist: take the name with an empty file, then rename over it."""
    try:
        final.open("xb").close()
    except FileExistsError:
        refuse_existing(final)
        raise
    try:
        temporary.replace(final)
    except BaseException:
        final.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system lets a folder be opened (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
