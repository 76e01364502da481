"""The training loop that every network here shares: schedule, optimiser, average, checkpoints, metrics.

A step draws what it needs from generators that begin anew for (seed, purpose, step), so a run that was
stopped, killed even, goes on bit for bit as if nothing had happened (on a CPU, at a budget counted in steps).
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import make_folder
from sdscratch.streams import HANG_UP, leave_terminal
from sdscratch.training.engine.distributed import Machine
from sdscratch.training.engine.ema import EMA
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.engine.recipe import Recipe, learning_rate
from sdscratch.training.engine.replicas import Loss, Team
from sdscratch.training.engine.state import FOLDER, State, forget_later, newest_checkpoint, prune

__all__ = ["Record", "Show", "Standing", "Watch", "train"]

log = logging.getLogger(__name__)

SETTLE_EVERY = 1.0  # seconds between two looks at what the device has computed


@dataclass(frozen=True)
class Standing:
    """How far a run is."""

    step: int
    progress: float  # share of the budget, 0 to 1
    seconds: float  # spent, earlier parts of the run included
    speed: float  # pictures a second, since this part of the run began
    figures: dict[str, float]  # the newest step's line of the metrics


Show = Callable[[Standing], None]
Record = Callable[[dict[str, float]], None]  # takes a line of the metrics
Watch = Callable[[int], None]  # takes the step; meanwhile the module has its averaged weights


def train(
    module: nn.Module,
    loss: Loss,
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    *,
    positions: int = 0,
    resume: Path | None = None,
    show: Show = lambda standing: None,
    watch: Watch = lambda step: None,
    record: Record = lambda line: None,
) -> int:
    """Train what requires gradients in `module`; leave the averaged weights in it, and return the steps done.

    Goes on from the newest whole checkpoint in `folder`, where there is one.

    Args:
        folder: gets `checkpoints/` and `metrics.jsonl`.
        positions: how many see each other in the network's largest attention.
        resume: a checkpoint to go on from instead.
        show: told once a second or at every step, whichever is rarer.
        watch: called at checkpoints, or every `recipe.look_steps` and at the end; by the process that leads.
        record: told every step's figures, a little later.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT, SIGTERM or SIGHUP came; a checkpoint was written before.
        SdscratchError: a loss or gradient is not finite, or the disk is full.
        CheckpointError: the checkpoint is of another network.
    """
    if machine.processes > 1 and recipe.workers > 1:
        raise UsageError(
            "workers are threads of a single process; with torchrun, start more processes instead"
        )
    run = _Run(module, loss, recipe, folder, machine, show, watch, record)
    run.begin(resume)
    with machine.attention(positions), _interruptions() as interrupted:
        stopped_by = run.go(interrupted)
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    if stopped_by:
        raise SystemExit(128 + stopped_by)
    run.finish()
    return run.state.step


class _Run:
    """One part of a run, from a start or a checkpoint to the next stop."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        recipe: Recipe,
        folder: Path,
        machine: Machine,
        show: Show,
        watch: Watch,
        record: Record,
    ) -> None:
        self.record = record
        self.loss, self.recipe, self.machine, self.show, self.watch = loss, recipe, machine, show, watch
        self.folder = folder
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(
            trained,
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.ema = EMA(module, recipe.ema) if recipe.ema is not None else None
        self.state = State(module, self.optimiser, self.ema)
        self.trained = trained

    def begin(self, resume: Path | None) -> None:
        """Find where to go on, and prepare what only a run needs."""
        make_folder(self.folder / FOLDER)
        path = resume or newest_checkpoint(self.folder / FOLDER)
        if path is not None:
            self.state.load(path)
            log.info("going on after step %d", self.state.step)
        most, least = self.machine.agree(self.state.step, -self.state.step)
        if most != -least:
            raise SdscratchError(
                f"the processes find different checkpoints in {self.folder}; it must be one folder that "
                "all machines share"
            )
        recipe = self.recipe
        if self.machine.leads:
            forget_later(self.folder / FOLDER, self.state.step)
        self.metrics = Metrics(self.folder, self.state.step, self.record) if self.machine.leads else None
        self.team = Team(self.machine.shared(self.state.module), recipe.workers, recipe.accumulate)
        share = recipe.size(1)
        self.places = range(self.machine.rank * share, (self.machine.rank + 1) * share)
        self.first = self.state.step
        self.started = time.monotonic()
        self.before = self.state.seconds

    def go(self, interrupted: Callable[[], int]) -> int:
        """Step until the budget is spent, or a signal came; return its number, or 0."""
        saved = looked = self.state.step
        saved_at = settled_at = time.monotonic()
        while True:
            step = self.state.step
            seconds, stop = self.machine.agree(self.before + time.monotonic() - self.started, interrupted())
            self.state.seconds = seconds
            progress = self.recipe.budget.progress(step, seconds)
            over = progress >= 1.0 or stop > 0
            if time.monotonic() - settled_at > SETTLE_EVERY or over:
                self._settle(progress)
                settled_at = time.monotonic()
            if step > saved and (over or self._due(step, seconds, saved_at)):
                self._settle(progress)
                self._save()
                saved, saved_at = step, time.monotonic()
            every = self.recipe.look_steps
            worth_a_look = step == saved if every is None else over or step % every == 0
            if worth_a_look and step > looked and not stop:
                self._look()
                looked = step
            if over:
                return int(stop)
            self._step(progress)

    def _due(self, step: int, seconds: float, saved_at: float) -> bool:
        recipe = self.recipe
        by_steps = recipe.save_steps is not None and step % recipe.save_steps == 0
        by_time = recipe.save_seconds is not None and time.monotonic() - saved_at > recipe.save_seconds
        return by_steps or by_time

    def _step(self, progress: float) -> None:
        state = self.state
        rate = learning_rate(self.recipe, state.step, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        figures = self.team.descend(self.loss, state.step, self.places)
        means = self.machine.mean(torch.stack(list(figures.values())))
        norm = nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(state.step)
        state.step += 1
        if self.metrics is not None:
            about: dict[str, Tensor] = dict(zip(figures, means.unbind(), strict=True)) | {"norm": norm}
            self.metrics.add(state.step, about, rate=rate, seconds=state.seconds)

    def _settle(self, progress: float) -> None:
        """See what the steps gave, and tell it."""
        if self.metrics is not None and (newest := self.metrics.settle()):
            done = (self.state.step - self.first) * self.recipe.size(self.machine.processes)
            speed = done / max(time.monotonic() - self.started, 1e-9)
            self.show(Standing(self.state.step, progress, self.state.seconds, speed, newest))

    def _save(self) -> None:
        if self.machine.leads:
            self.state.save(self.folder / FOLDER)
            prune(self.folder / FOLDER, self.recipe.keep)

    def _look(self) -> None:
        if self.machine.leads:
            with self.ema.in_place() if self.ema is not None else nullcontext():
                self.watch(self.state.step)

    def finish(self) -> None:
        """Leave the averages in the module."""
        if self.ema is not None:
            for weight, average in zip(self.ema.weights, self.ema.averages, strict=True):
                weight.data = average


@contextmanager
def _interruptions() -> Iterator[Callable[[], int]]:
    """Within, the first SIGINT, SIGTERM or SIGHUP is remembered instead of ending the process within a step.

    A second one does what it would have done before.
    """
    came = 0
    numbers = (signal.SIGINT, signal.SIGTERM, *(() if HANG_UP is None else (HANG_UP,)))
    before = {number: signal.getsignal(number) for number in numbers}
    if HANG_UP is not None and before[HANG_UP] == signal.SIG_IGN:  # nohup
        del before[HANG_UP]

    def remember(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = number
        if number == HANG_UP:
            leave_terminal()
        log.warning("stopping after this step, with a checkpoint; press Ctrl-C again to stop at once")
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: came
    finally:
        restore()
