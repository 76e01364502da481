"""What a run computes on: a device, a precision, and the processes that share every step's batch.

Several processes are started by `torchrun`; each finds its number in the environment. Rank 0 alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from sdscratch.hardware import device_kind

__all__ = ["DistributedContext", "joined", "launched_processes", "without_sharing", "workers_for"]

# rank 0 may write, draw samples and validate while the others wait for it
PATIENCE = timedelta(hours=2)
FUSED_ABOVE = 512  # positions


@dataclass(frozen=True)
class DistributedContext:
    """One process among those that share a run, and what it computes on."""

    device: torch.device
    precision: torch.dtype = torch.float32  # of the arithmetic; weights are float32, whatever it is
    rank: int = 0
    processes: int = 1
    control: Any = None  # the group of processes that agree on when to stop, on their CPUs

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """The context in which networks run."""
        half = self.precision == torch.bfloat16
        return torch.autocast(device_kind(self.device), torch.bfloat16, enabled=half, cache_enabled=True)

    @contextmanager
    def attention(self, positions: int = 0) -> Iterator[None]:
        """The kernels of attention that are fastest forwards and backwards here.

        On a CPU, of small pictures, the written-out one is 2.5 to 6 times faster than the fused; at 1024
        positions it takes twice as long, at 4096 three times.

        Args:
            positions: how many see each other.
        """
        if device_kind(self.device) != "cpu" or positions > FUSED_ABOVE:
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield

    def shared(self, module: nn.Module) -> nn.Module:
        """`module`, or around it PyTorch's own data parallelism, which leaves the mean gradient of all."""
        if self.processes == 1:
            return module
        devices = [self.device] if device_kind(self.device) == "cuda" else None
        return DistributedDataParallel(module, devices, gradient_as_bucket_view=True)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, on the device, without waiting for it on a GPU."""
        if self.processes > 1:
            dist.all_reduce(values)
            values = values / self.processes
        return values

    def agree(self, *values: float) -> list[float]:
        """The largest that any process says, for each of `values`."""
        if self.processes == 1:
            return list(values)
        said = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.control)
        return said.tolist()


def without_sharing(module: nn.Module) -> AbstractContextManager[None]:
    """Within, several processes do not average gradients yet."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def launched_processes() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, as torchrun says them; (0, 1, 0) without it."""
    found = (os.environ.get(name, default) for name, default in LAUNCH)
    rank, processes, local = map(int, found)
    return rank, processes, local


LAUNCH = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def joined(device: torch.device, precision: torch.dtype) -> Iterator[DistributedContext]:
    """This process among those that torchrun started, each with a GPU of its own; or alone."""
    rank, processes, local = launched_processes()
    if processes == 1:
        yield DistributedContext(device, precision)
        return
    if device_kind(device) == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device_kind(device) == "cuda" else "gloo", timeout=PATIENCE)
    try:
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield DistributedContext(device, precision, rank, processes, control)
    finally:
        dist.destroy_process_group()


def workers_for(distributed: DistributedContext, batch: int) -> int:
    """How many threads should share a batch: on a CPU that no other process shares, one a core."""
    if device_kind(distributed.device) != "cpu" or distributed.processes > 1:
        return 1
    return max(count for count in range(1, (os.cpu_count() or 1) + 1) if batch % count == 0)
