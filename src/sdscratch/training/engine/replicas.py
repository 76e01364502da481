"""A process's share of a batch, computed by replicas of a module in threads, a part after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdscratch.errors import UsageError

__all__ = ["Figures", "Loss", "Team", "split"]

Figures = Mapping[str, Tensor]
"""Numbers worth keeping, 0-dimensional and without gradients: nobody waits for a GPU to have them."""

Loss = Callable[[nn.Module, int, range], tuple[Tensor, Figures]]
"""Module, step, places → the mean loss over these places of the step's batch, and figures about it."""


def split(places: range, parts: int) -> list[range]:
    """Equal, neighbouring parts.

    Raises:
        UsageError: it cannot be done.
    """
    if len(places) % parts:
        raise UsageError(f"a batch of {len(places)} cannot be split into {parts} equal parts")
    size = len(places) // parts
    return [range(start, start + size) for start in range(places.start, places.stop, size)]


class Team:
    """Replicas of a module, one a thread, that share its weights and split a batch between them.

    Torch's own threads meet at the end of every operation: on a machine that also does other work, each of
    those meetings waits for the thread that was put aside. Replicas meet once a step. A team of one works in
    the caller's thread, with torch's threads as they are.

    Args:
        accumulate: how many parts each replica works off, one after another.
    """

    def __init__(self, module: nn.Module, workers: int = 1, accumulate: int = 1) -> None:
        self.accumulate = accumulate
        self.replicas = [module, *(copy.deepcopy(module) for _ in range(workers - 1))]
        for replica in self.replicas[1:]:
            for own, shared in zip(replica.parameters(), module.parameters(), strict=True):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def descend(self, loss: Loss, step: int, places: range) -> dict[str, Tensor]:
        """Leave the gradient of the mean loss over `places` in the module; return the figures' means."""
        shares = split(places, len(self.replicas))

        def work(worker: int) -> list[Figures]:
            return list(self._share(loss, step, self.replicas[worker], shares[worker]))

        workers = range(len(shares))
        lists = [work(0)] if len(shares) == 1 else list(self.pool.map(work, workers))
        first, *others = (_gradients(replica) for replica in self.replicas)
        for other in others:
            torch._foreach_add_(first, other)
        figures = [each for per_worker in lists for each in per_worker]
        return {name: torch.stack([each[name] for each in figures]).mean() for name in figures[0]}

    def _share(self, loss: Loss, step: int, replica: nn.Module, places: range) -> list[Figures]:
        replica.zero_grad(set_to_none=True)
        figures: list[Figures] = []
        parts = split(places, self.accumulate)
        for part in parts:
            with nullcontext() if part is parts[-1] else _without_sharing(replica):
                value, about = loss(replica, step, part)
                (value / (len(parts) * len(self.replicas))).backward()
            figures.append({"loss": value.detach(), **about})
        return figures


def _without_sharing(module: nn.Module) -> AbstractContextManager[None]:
    """Within, several processes do not average gradients yet."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
