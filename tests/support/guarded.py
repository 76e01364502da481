"""Reads files with an audit hook that reports, and stops, whatever a reader of data has no business to do.

    python guarded.py reader|pickle SOUND FILE…    prints one line of JSON a file

SOUND is read first, unwatched, so that what Python loads only when it is needed is there.

`reader` is sdscratch's, which may open that one file for reading, map it so that nothing is written to it,
and do nothing else. `pickle` is Python's
own, the control: it shows that the hook sees what the files try. Nothing of it is ever done: the hook raises.
"""

from __future__ import annotations

import json
import mmap
import pickle
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 (imported here, so that importing it is no event of a file's)
import torch

from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.reader import open_tensors

QUIET = {"pickle.find_class", "import"}  # what the control lets pass, to see what comes after it


class Forbidden(BaseException):
    """Not an Exception: no reader may swallow it."""


def read(path: str) -> None:
    with open_tensors(path) as file:
        for name in file.tensors:
            file.read(name).sum()


def unpickle(path: str) -> None:
    with Path(path).open("rb") as file:
        Trusting(file).load()


class Trusting(pickle.Unpickler):
    def persistent_load(self, identity: Any) -> Any:
        bytes_ = torch.zeros(4).untyped_storage()
        return torch.storage.TypedStorage(wrap_storage=bytes_, dtype=torch.float32, _internal=True)


def watch(job: Callable[[str], None], path: str) -> dict[str, Any]:
    """What happened while `job` read the file: its outcome, forbidden events, seconds."""
    global watching, allowed
    events.clear()
    started = time.monotonic()
    watching, allowed = job, path
    try:
        job(path)
        outcome = "read"
    except CheckpointError as error:
        outcome = f"CheckpointError: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    finally:
        watching = None
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"file": path, "outcome": outcome, "events": events[:], "seconds": seconds, "memory": memory}


def maps_privately(file: int, length: int, access: int, offset: int) -> bool:
    """Whether the one file is mapped in a way that never writes to it."""
    mapped = Path(f"/proc/self/fd/{file}").resolve()
    return access in (mmap.ACCESS_READ, mmap.ACCESS_COPY) and mapped == Path(allowed).resolve()


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    global watching
    if watching is None:
        return
    if event == "open" and str(arguments[0]) == allowed and arguments[1] in ("r", "rb", None):
        return
    if event == "mmap.__new__" and maps_privately(*arguments):
        return
    job, watching = watching, None  # what the hook itself does is no event, nor what handles its exception
    if job is unpickle and event not in QUIET and is_loading():
        watching = job
        return
    events.append(event)
    if job is read or event not in QUIET:
        raise Forbidden(event)
    watching = job


def is_loading() -> bool:
    """Whether Python is only busy importing a module that a pickle named."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


watching: Callable[[str], None] | None = None
allowed = ""
events: list[str] = []

if __name__ == "__main__":
    job = {"reader": read, "pickle": unpickle}[sys.argv[1]]
    sys.addaudithook(hook)
    job(sys.argv[2])
    for path in sys.argv[3:]:
        print(json.dumps(watch(job, path)), flush=True)
