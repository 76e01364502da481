"""What a measurement must say of the machine, and how much memory was needed at most."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import torch

from sdscratch import __version__
from sdscratch.device import Placement

__all__ = ["Machine", "Peak", "describe_machine", "synchronize", "watch_memory"]

STATUS = Path("/proc/self/status")
EVERY = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class Machine:
    """Where a measurement was made, and by what."""

    processor: str
    threads: int  # of torch, on the CPU
    device: str
    dtype: str
    reason: str  # for both
    versions: dict[str, str]


def describe_machine(placement: Placement) -> Machine:
    """What is computing here."""
    on_gpu = placement.device.type == "cuda"
    return Machine(
        processor=torch.cuda.get_device_name(placement.device) if on_gpu else processor(),
        threads=torch.get_num_threads(),
        device=str(placement.device),
        dtype=placement.dtype_name,
        reason=placement.reason,
        versions={"sdscratch": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def processor() -> str:
    """The processor's name as people know it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        match = re.search(r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE)
        if match is not None:
            return match[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked for; a GPU works on while Python is ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass
class Peak:
    """The most memory seen, and what kind of memory it is."""

    kind: str
    bytes: int = 0


@contextmanager
def watch_memory(device: torch.device) -> Iterator[Peak]:
    """Watch how much memory is needed at most while the context lasts.

    On a CUDA device that is what torch has allocated there. On the CPU it is the process's anonymous memory
    (RssAnon; mapped pages of files, which the system can take back, aside), looked at every 20 ms; where the
    system does not tell that, the resident memory at its highest since the process began.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        peak = Peak("allocated on the GPU")
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
    elif STATUS.exists() and "RssAnon" in STATUS.read_text():
        yield from _watch_anonymous()
    else:
        peak = Peak("resident")
        yield peak
        peak.bytes = resident_at_most()


def _watch_anonymous() -> Iterator[Peak]:
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
    """Bytes of anonymous memory that this process has in RAM now."""
    match = re.search(r"RssAnon:\s*(\d+) kB", STATUS.read_text())
    return int(match[1]) * 1024 if match else 0


def resident_at_most() -> int:
    """Bytes that this process has had in RAM at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
