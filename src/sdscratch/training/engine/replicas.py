"""Replicas of a module in threads: they share its weights, and a process's share of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from sdscratch.errors import UsageError
from sdscratch.training.engine.metrics import Metrics

__all__ = ["Replicas", "split"]


def split(indices: range, parts: int) -> list[range]:
    """Equal, neighbouring parts.

    Raises:
        UsageError: it cannot be done.
    """
    if len(indices) % parts:
        raise UsageError(f"a batch of {len(indices)} cannot be split into {parts} equal parts")
    size = len(indices) // parts
    return [range(start, start + size) for start in range(indices.start, indices.stop, size)]


class Replicas:
    """Replicas of a module, one a thread, that share its weights and split a batch between them.

    Torch's own threads meet at the end of every operation: on a machine that also does other work, each of
    those meetings waits for the thread that was put aside. Replicas meet once a step. A single one works in
    the caller's thread, with torch's threads as they are.
    """

    def __init__(self, module: nn.Module, workers: int = 1) -> None:
        self.modules = [module, *(copy.deepcopy(module) for _ in range(workers - 1))]
        for replica in self.modules[1:]:
            for own, shared in zip(replica.parameters(), module.parameters(), strict=True):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def __len__(self) -> int:
        return len(self.modules)

    def run(self, work: Callable[[nn.Module, range], list[Metrics]], indices: range) -> list[Metrics]:
        """Call `work` with every replica and its share of `indices`, all at once; return all that it gives.

        The gradients that it leaves in the replicas are summed in the module.
        """
        shares = split(indices, len(self))
        if len(self) == 1:
            return work(self.modules[0], shares[0])
        found = list(self.pool.map(work, self.modules, shares))
        first, *others = (_gradients(replica) for replica in self.modules)
        for other in others:
            torch._foreach_add_(first, other)
        return [each for part in found for each in part]


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
