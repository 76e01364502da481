"""Where to compute, in which precision, and why: the one place that knows about hardware."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sdscratch.errors import DeviceError
from sdscratch.hardware import device_kind
from sdscratch.options import check_placement

__all__ = ["Placement", "choose", "multiplies_integers", "out_of_memory_explained"]


log = logging.getLogger(__name__)

INTEGERS = ("avx512_vnni", "amx_int8", "avx_vnni")  # what a processor calls them
TRIED = "SDSCRATCH_INT8"  # 1: take int8 without them, to see what it draws


@dataclass(frozen=True)
class Placement:
    """A device, a precision, and the reason for both in words."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    compiled: bool = False  # the U-Net by torch.compile, as asked for
    integers: bool = False  # products of 8-bit integers where that is faster, in `dtype` all else

    @property
    def batches(self) -> bool:
        """Whether several pictures at once are faster than one after another.

        On a CPU they are not, and one at a time keeps every bit of a picture independent of its batch.
        """
        return device_kind(self.device) != "cpu"

    @property
    def accelerates(self) -> bool:
        """Whether the U-Net runs in another way here than Python would call it (`accelerate`)."""
        return self.compiled or device_kind(self.device) == "cuda"

    @property
    def dtype_name(self) -> str:
        """float32, bfloat16, float16 or int8."""
        return "int8" if self.integers else str(self.dtype).removeprefix("torch.")


def choose(device: str = "auto", dtype: str = "auto", *, compiled: bool = False) -> Placement:
    """Decide where to compute and how exactly.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16, float16 or int8.
        compiled: compile the U-Net first.

    Raises:
        UsageError: a name that means nothing.
        DeviceError: a device that is not there.
    """
    check_placement(device, dtype)
    where, why_device = _best_device() if device == "auto" else (torch.device(device), "asked for")
    _check_present(where)
    integers = dtype == "int8" and _takes_integers(where)
    if integers:
        precision, why_dtype = _best_dtype(where)
        why_dtype = f"asked for; all else in {_name(precision)}: {why_dtype}"
    elif dtype == "int8":
        precision = _best_dtype(where)[0] if device_kind(where) != "cpu" else torch.bfloat16
        why_dtype = "in the place of int8"
        log.warning(
            "int8 is for processors with VNNI or AMX, and %s; %s is taken",
            "this one has neither" if device_kind(where) == "cpu" else f"not for {where}",
            _name(precision),
        )
    else:
        precision, why_dtype = _best_dtype(where) if dtype == "auto" else (getattr(torch, dtype), "asked for")
    name = "int8" if integers else _name(precision)
    reason = f"{where} ({why_device}), {name} ({why_dtype})" + (", compiled" if compiled else "")
    return Placement(where, precision, reason, compiled, integers)


def multiplies_integers() -> bool:
    """Whether the CPU has instructions that add products of 8-bit integers in 32 bits."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(feature, False) for feature in INTEGERS)


def _takes_integers(device: torch.device) -> bool:
    """Whether int8 is done where it is asked for; without those instructions only to be tried."""
    if device_kind(device) != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return multiplies_integers() or os.environ.get(TRIED) == "1"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _best_device() -> tuple[torch.device, str]:
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple GPU"
    return torch.device("cpu"), "no GPU found"


def _best_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device_kind(device) == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "tensor cores, and the range of float32"
        return torch.float16, "tensor cores; no bfloat16 in this GPU"
    if device_kind(device) == "mps":
        return torch.float16, "half the memory"
    capabilities = torch.cpu.get_capabilities()
    for feature in ("amx_bf16", "avx512_bf16"):
        if capabilities.get(feature, False):
            return torch.bfloat16, f"the processor has {feature.upper()}"
    return torch.float32, "the processor has no bfloat16 arithmetic"


def _check_present(device: torch.device) -> None:
    if device_kind(device) == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = {0: "is no CUDA device", 1: "is 1 CUDA device"}.get(count, f"are {count} CUDA devices")
            raise DeviceError(f"{device} was asked for, but there {found} here; use --device auto or cpu")
    if device_kind(device) == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps was asked for, but there is no Apple GPU here; use --device auto or cpu")


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turn running out of memory, on whichever device, into a DeviceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(_OUT_OF_MEMORY) from error
    except RuntimeError as error:
        # the allocators of CPU and MPS have no exception class of their own
        if re.search("can't allocate memory|not enough memory|out of memory", str(error)):
            raise DeviceError(_OUT_OF_MEMORY) from error
        raise


_OUT_OF_MEMORY = "out of memory; ask for a smaller picture, a smaller --batch-size or a 16-bit --dtype"
