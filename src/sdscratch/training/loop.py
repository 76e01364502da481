"""The training loop that every network here shares: schedule, optimiser, average, checkpoints, metrics.

A step draws what it needs from generators seeded with (seed, step), so a run that is stopped and resumed goes
on bit for bit as if it had not been stopped (at one learning-rate schedule counted in steps).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import atomic_write
from sdscratch.training.ema import EMA
from sdscratch.training.report import Report
from sdscratch.training.team import Loss, Team

__all__ = ["Budget", "Recipe", "learning_rate", "load_weights", "train"]

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Budget:
    """How long to train: in steps, or in seconds spent (both may count a resumed run's earlier parts)."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("give a training run either a number of steps or a time")

    def progress(self, step: int, seconds: float) -> float:
        """What share is spent, 0 to 1."""
        spent = step / self.steps if self.steps else seconds / (self.seconds or 1.0)
        return min(spent, 1.0)


@dataclass(frozen=True)
class Recipe:
    """How to descend."""

    budget: Budget
    learning_rate: float
    warm_up: int = 100  # steps
    final_share: float = 0.02  # of the learning rate, at the end
    decay_from: float = 0.0  # share of the budget after which the rate falls
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient, at most
    ema: float = 0.999
    workers: int = 2  # threads that each compute a share of the batch
    save_every: float = 180.0  # seconds


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """A linear rise, then level, then half a cosine down (Loshchilov & Hutter 2017, eq. 5)."""
    rise = min(1.0, (step + 1) / recipe.warm_up)
    fallen = max(0.0, (progress - recipe.decay_from) / (1.0 - recipe.decay_from))
    share = recipe.final_share + (1.0 - recipe.final_share) * 0.5 * (1.0 + math.cos(math.pi * fallen))
    return recipe.learning_rate * rise * share


def train(
    module: nn.Module,
    loss: Loss,
    recipe: Recipe,
    folder: Path,
    watch: Callable[[int, nn.Module], None] = lambda step, average: None,
) -> nn.Module:
    """Train `module` in place, resuming from `folder` where it holds a checkpoint; return the average.

    Args:
        watch: called after each checkpoint with the step and the average.

    Raises:
        SystemExit: SIGTERM came; the checkpoint was written before.
        SdscratchError: the loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        module.parameters(), betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    ema = EMA(module, recipe.ema)
    team = Team(module, recipe.workers)
    step, seconds = _resume(folder / CHECKPOINT, module, ema, optimiser)
    started = time.monotonic() - seconds

    def save() -> None:
        state = {
            "module": module.state_dict(),
            "ema": ema.module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "seconds": seconds,
        }
        with atomic_write(folder / CHECKPOINT, overwrite=True) as file:
            torch.save(state, file)

    # at these sizes, written-out attention is several times faster backwards on the CPU than the fused one
    with sdpa_kernel(SDPBackend.MATH), Report(folder) as report, _terminations() as terminated:
        saved = time.monotonic()
        while (progress := recipe.budget.progress(step, seconds)) < 1.0:
            rate = learning_rate(recipe, step, progress)
            for group in optimiser.param_groups:
                group["lr"] = rate
            figures = team.descend(loss, step)
            norm = nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
            if not math.isfinite(float(norm)):
                raise SdscratchError(
                    f"the gradient of step {step} is not finite; lower the learning rate and resume"
                )
            optimiser.step()
            ema.update(module, step)
            step += 1
            seconds = time.monotonic() - started
            report(step, seconds, progress, {**figures, "rate": rate, "norm": float(norm)})
            if terminated() or time.monotonic() - saved > recipe.save_every:
                save()
                watch(step, ema.module)
                saved = time.monotonic()
            if terminated():
                raise SystemExit(128 + signal.SIGTERM)
    save()
    return ema.module


def load_weights(folder: Path, module: nn.Module) -> int:
    """Fill `module` with the averaged weights of the run in `folder`; return its step.

    Raises:
        SdscratchError: no checkpoint there.
    """
    state = _read(folder / CHECKPOINT)
    module.load_state_dict(state["ema"])
    return int(state["step"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SdscratchError(f"{path.parent} holds no {CHECKPOINT}; train there first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _resume(path: Path, module: nn.Module, ema: EMA, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    state = _read(path)
    module.load_state_dict(state["module"])
    ema.module.load_state_dict(state["ema"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["seconds"])


@contextmanager
def _terminations() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM is remembered instead of ending the process in the middle of a step."""
    came = False

    def remember(*_: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)
