"""One step of training: loss, backward, clip, step, average.

`TrainingStep` is the whole of it; what comes before and after, checkpoints and metrics and validation, is the
loop's (`loop`). A batch has indices 0 to size − 1. Processes, threads and accumulation are only ways to share
them out: the gradient is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdscratch.training.engine.distributed import DistributedContext, without_sharing
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.engine.recipe import Recipe
from sdscratch.training.engine.replicas import Replicas, split
from sdscratch.training.engine.state import State

__all__ = ["Loss", "TrainingStep", "backward", "make_optimiser"]

Loss = Callable[[nn.Module, int, range], tuple[Tensor, Metrics]]
"""Module, step, indices → the mean loss over these indices of the step's batch, and metrics about it."""


@dataclass(frozen=True)
class TrainingStep:
    """What a step needs, besides the state that it changes."""

    loss: Loss
    recipe: Recipe
    replicas: Replicas
    distributed: DistributedContext

    def __call__(self, state: State, rate: float) -> dict[str, Tensor]:
        """Take a step at a learning rate; return the means of its metrics over all processes."""
        recipe, distributed = self.recipe, self.distributed
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        # loss and gradient, of this process's share of the batch; processes average gradients as they come
        metrics = backward(self.replicas, self.loss, state.step, self.indices, recipe.accumulate)
        means = distributed.mean(torch.stack(list(metrics.values())))
        norm = nn.utils.clip_grad_norm_(state.trained, recipe.clip)
        state.optimiser.step()
        if state.ema is not None:
            state.ema.update(state.step)
        state.step += 1
        return dict(zip(metrics, means.unbind(), strict=True)) | {"norm": norm}

    @property
    def indices(self) -> range:
        """This process's share of the batch."""
        share = self.recipe.size(1)
        return range(self.distributed.rank * share, (self.distributed.rank + 1) * share)


def backward(
    replicas: Replicas, loss: Loss, step: int, indices: range, accumulate: int = 1
) -> dict[str, Tensor]:
    """Leave the gradient of the mean loss over `indices` in the module; return the metrics' means.

    Args:
        accumulate: how many parts each replica works off, one after another.
    """

    def work(module: nn.Module, share: range) -> list[Metrics]:
        module.zero_grad(set_to_none=True)
        found: list[Metrics] = []
        parts = split(share, accumulate)
        for part in parts:
            with nullcontext() if part is parts[-1] else without_sharing(module):
                value, metrics = loss(module, step, part)
                (value / (len(parts) * len(replicas))).backward()
            found.append({"loss": value.detach(), **metrics})
        return found

    found = replicas.run(work, indices)
    return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}


def make_optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) of what is trained."""
    return torch.optim.AdamW(
        [weight for weight in module.parameters() if weight.requires_grad],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
