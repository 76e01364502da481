"""Data parallelism within one process: replicas of a module in threads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

__all__ = ["Loss", "Team", "share_seed"]

Loss = Callable[[nn.Module, int, int], tuple[Tensor, dict[str, float]]]
"""Module, step and worker → the loss of this worker's share of the batch, and other figures worth keeping."""


def share_seed(seed: int, step: int, worker: int) -> int:
    """The seed of one worker's share of one step's batch."""
    return (seed << 48) + (step << 8) + worker


class Team:
    """Replicas of a module, one a thread, that share its weights and split a batch between them.

    Torch's own threads meet at the end of every operation: on a machine that also does other work, each of
    those meetings waits for the thread that was put aside. Replicas meet once a step.
    """

    def __init__(self, module: nn.Module, workers: int) -> None:
        self.replicas = [module, *(copy.deepcopy(module) for _ in range(workers - 1))]
        for replica in self.replicas[1:]:
            for own, shared in zip(replica.parameters(), module.parameters(), strict=True):
                own.data = shared.data
        self.pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def descend(self, loss: Loss, step: int) -> dict[str, float]:
        """Leave the gradient of the whole batch in the module; return the figures' means."""

        def share(worker: int) -> dict[str, float]:
            replica = self.replicas[worker]
            replica.zero_grad(set_to_none=True)
            value, figures = loss(replica, step, worker)
            (value / len(self.replicas)).backward()
            return {"loss": float(value.detach()), **figures}

        figures = list(self.pool.map(share, range(len(self.replicas))))
        first, *others = (_gradients(replica) for replica in self.replicas)
        for other in others:
            torch._foreach_add_(first, other)
        return {name: sum(f[name] for f in figures) / len(figures) for name in figures[0]}


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
