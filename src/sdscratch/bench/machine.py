"""What a measurement must say of the machine, and how much memory was needed at most."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sdscratch.bench.memory import Peak, watch_process
from sdscratch.device import Placement
from sdscratch.hardware import device_kind
from sdscratch.version import __version__

__all__ = ["Machine", "describe_machine", "processor", "synchronize", "watch_memory"]


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
    on_gpu = device_kind(placement.device) == "cuda"
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
    if device_kind(device) == "cuda":
        torch.cuda.synchronize(device)
    elif device_kind(device) == "mps":
        torch.mps.synchronize()


@contextmanager
def watch_memory(device: torch.device) -> Iterator[Peak]:
    """Watch how much memory is needed at most: on a CUDA device what torch has allocated there, else ours."""
    if device_kind(device) != "cuda":
        with watch_process() as peak:
            yield peak
        return
    torch.cuda.reset_peak_memory_stats(device)
    peak = Peak("allocated on the GPU")
    yield peak
    peak.bytes = torch.cuda.max_memory_allocated(device)
