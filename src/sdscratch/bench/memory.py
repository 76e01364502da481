"""How much memory of its own a process needs at most; imports no torch, which takes 0.2 GB itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

__all__ = ["Peak", "watch_process"]

STATUS = Path("/proc/self/status")
EVERY = 0.02  # seconds between two looks


@dataclass
class Peak:
    """The most memory seen, and what kind of memory it is."""

    kind: str
    bytes: int = 0


@contextmanager
def watch_process() -> Iterator[Peak]:
    """Watch this process's memory while the context lasts.

    It is the anonymous memory (RssAnon; mapped pages of files, which the system can take back, aside), looked
    at every 20 ms; where the system does not tell that, what was resident at most since the process began.
    """
    if anonymous() == 0:
        peak = Peak("resident")
        yield peak
        peak.bytes = resident_at_most()
        return
    peak, done = Peak("anonymous (RssAnon)"), Event()

    def watch() -> None:
        while True:
            peak.bytes = max(peak.bytes, anonymous())
            if done.wait(EVERY):
                return

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def anonymous() -> int:
    """Bytes of anonymous memory that this process has in RAM now; 0 where the system does not tell."""
    match = re.search(r"RssAnon:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return int(match[1]) * 1024 if match else 0


def resident_at_most() -> int:
    """Bytes that this process has had in RAM at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
