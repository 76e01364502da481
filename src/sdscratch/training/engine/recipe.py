"""The recipe of a training: batch, optimiser, learning rate, and for how long (no torch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sdscratch.errors import UsageError

__all__ = ["Budget", "Decay", "Recipe", "learning_rate"]


@dataclass(frozen=True)
class Budget:
    """How long to train: in steps, or in seconds spent (both may count a resumed run's earlier parts)."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("give a training run either a number of steps or a time")

    def share(self, step: int, seconds: float) -> float:
        """How much of it is spent, 0 to 1."""
        spent = step / self.steps if self.steps else seconds / (self.seconds or 1.0)
        return min(spent, 1.0)


Decay = Literal["constant", "linear", "cosine"]

# The share of its fall that a rate has behind it, when a share x of the falling time is over.
FALLS: dict[Decay, Callable[[float], float]] = {
    "constant": lambda x: 0.0,
    "linear": lambda x: x,
    "cosine": lambda x: 0.5 * (1.0 - math.cos(math.pi * x)),  # Loshchilov & Hutter 2017, eq. 5
}


@dataclass(frozen=True)
class Recipe:
    """Everything that a run is asked for besides what it trains."""

    budget: Budget
    learning_rate: float
    batch: int  # pictures a process takes at once; a step has batch · accumulate · processes
    accumulate: int = 1  # how many such batches make a step
    workers: int = 1  # threads that share each of them
    seed: int = 0
    warm_up: int = 100  # steps
    decay: Decay = "cosine"
    decay_from: float = 0.0  # share of the budget after which the rate falls
    final_share: float = 0.02  # of the learning rate, at the end
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient, at most
    ema: float | None = 0.999  # None keeps no average
    save_seconds: float | None = 180.0  # a checkpoint at least so often
    save_steps: int | None = None
    keep: int | None = 2  # newest checkpoints; None keeps all
    validation_steps: int | None = None  # how often to validate; None is at every checkpoint

    def __post_init__(self) -> None:
        if self.batch % self.workers:
            raise UsageError(f"a batch of {self.batch} cannot be shared out to {self.workers} workers")

    def size(self, processes: int) -> int:
        """How many pictures a step's batch has."""
        return self.batch * self.accumulate * processes


def learning_rate(recipe: Recipe, step: int, share: float) -> float:
    """A linear rise, then level, then a fall to the final share.

    Args:
        share: of the budget, that is spent.
    """
    rise = min(1.0, (step + 1) / max(recipe.warm_up, 1))
    falling = max(0.0, share - recipe.decay_from) / max(1.0 - recipe.decay_from, 1e-9)
    fallen = FALLS[recipe.decay](min(falling, 1.0))
    return recipe.learning_rate * rise * (1.0 - (1.0 - recipe.final_share) * fallen)
