"""The training loop that every network here shares: steps, checkpoints, metrics, validation.

A step draws what it needs from generators that begin anew for (seed, purpose, step), so a run that was
stopped, killed even, goes on bit for bit as if nothing had happened (on a CPU, at a budget counted in steps).
What a step does is told in `step`.
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

from torch import nn

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.fast.attention import swap_attention
from sdscratch.files import make_folder
from sdscratch.streams import HANG_UP, leave_terminal
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.ema import EMA
from sdscratch.training.engine.metrics import MetricsLog
from sdscratch.training.engine.recipe import Recipe, learning_rate
from sdscratch.training.engine.replicas import Replicas
from sdscratch.training.engine.state import FOLDER, State, forget_later, newest_checkpoint, prune
from sdscratch.training.engine.step import Loss, TrainingStep, make_optimiser

__all__ = ["Progress", "Record", "Show", "Validate", "train"]

log = logging.getLogger(__name__)

FLUSH_EVERY = 1.0  # seconds between two looks at what the device has computed


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    share: float  # of the budget, 0 to 1
    seconds: float  # spent, earlier parts of the run included
    speed: float  # pictures a second, since this part of the run began
    metrics: dict[str, float]  # the newest step's line


Show = Callable[[Progress], None]
Record = Callable[[dict[str, float]], None]  # takes a line of the metrics
Validate = Callable[[int], None]  # takes the step; meanwhile the module has its averaged weights


def train(
    module: nn.Module,
    loss: Loss,
    recipe: Recipe,
    folder: Path,
    distributed: DistributedContext,
    *,
    positions: int = 0,
    resume: Path | None = None,
    show: Show = lambda progress: None,
    validate: Validate = lambda step: None,
    record: Record = lambda line: None,
) -> int:
    """Train what requires gradients in `module`; leave the averaged weights in it, and return the steps done.

    Goes on from the newest whole checkpoint in `folder`, where there is one.

    Args:
        folder: gets `checkpoints/` and `metrics.jsonl`.
        positions: how many see each other in the network's largest attention.
        resume: a checkpoint to go on from instead.
        show: told once a second or at every step, whichever is rarer.
        validate: called at checkpoints, or every `recipe.validation_steps` and at the end; by the process
            that leads.
        record: given every step's line of the metrics, a little later.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT, SIGTERM or SIGHUP came; a checkpoint was written before.
        SdscratchError: a loss or gradient is not finite, or the disk is full.
        CheckpointError: the checkpoint is of another network.
    """
    if distributed.processes > 1 and recipe.workers > 1:
        raise UsageError(
            "workers are threads of a single process; with torchrun, start more processes instead"
        )
    swap_attention(module)
    run = _Run(module, loss, recipe, folder, distributed, show, validate, record)
    run.begin(resume)
    with distributed.attention(positions), _interruptions() as interrupted:
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
        distributed: DistributedContext,
        show: Show,
        validate: Validate,
        record: Record,
    ) -> None:
        self.loss, self.recipe, self.folder, self.distributed = loss, recipe, folder, distributed
        self.show, self.validate, self.record = show, validate, record
        ema = EMA(module, recipe.ema) if recipe.ema is not None else None
        self.state = State(module, make_optimiser(module, recipe), ema)

    def begin(self, resume: Path | None) -> None:
        """Find where to go on, and prepare what only a run needs."""
        make_folder(self.folder / FOLDER)
        path = resume or newest_checkpoint(self.folder / FOLDER)
        if path is not None:
            self.state.load(path)
            log.info("going on after step %d", self.state.step)
        most, least = self.distributed.agree(self.state.step, -self.state.step)
        if most != -least:
            raise SdscratchError(
                f"the processes find different checkpoints in {self.folder}; it must be one folder that "
                "all machines share"
            )
        if self.distributed.leads:
            forget_later(self.folder / FOLDER, self.state.step)
            self.metrics: MetricsLog | None = MetricsLog(self.folder, self.state.step, self.record)
        else:
            self.metrics = None
        replicas = Replicas(self.distributed.shared(self.state.module), self.recipe.workers)
        self.step = TrainingStep(self.loss, self.recipe, replicas, self.distributed)
        self.first = self.state.step
        self.started = time.monotonic()
        self.before = self.state.seconds

    def go(self, interrupted: Callable[[], int]) -> int:
        """Step until the budget is spent, or a signal came; return its number, or 0."""
        saved = validated = self.state.step
        saved_at = flushed_at = time.monotonic()
        while True:
            step = self.state.step
            spent = self.before + time.monotonic() - self.started
            self.state.seconds, stop = self.distributed.agree(spent, interrupted())
            share = self.recipe.budget.share(step, self.state.seconds)
            over = share >= 1.0 or stop > 0
            if over or time.monotonic() - flushed_at > FLUSH_EVERY:
                self._flush(share)
                flushed_at = time.monotonic()
            if step > saved and (over or self._save_is_due(step, saved_at)):
                self._flush(share)
                self._save()
                saved, saved_at = step, time.monotonic()
            every = self.recipe.validation_steps
            due = step == saved if every is None else over or step % every == 0
            if due and step > validated and not stop:
                self._validate()
                validated = step
            if over:
                return int(stop)
            self._step(share)

    def _save_is_due(self, step: int, saved_at: float) -> bool:
        recipe = self.recipe
        by_steps = recipe.save_steps is not None and step % recipe.save_steps == 0
        by_time = recipe.save_seconds is not None and time.monotonic() - saved_at > recipe.save_seconds
        return by_steps or by_time

    def _step(self, share: float) -> None:
        rate = learning_rate(self.recipe, self.state.step, share)
        metrics = self.step(self.state, rate)
        if self.metrics is not None:
            self.metrics.add(self.state.step, metrics, rate=rate, seconds=self.state.seconds)

    def _flush(self, share: float) -> None:
        """Write what the steps gave, and show it."""
        if self.metrics is not None and (newest := self.metrics.flush()):
            done = (self.state.step - self.first) * self.recipe.size(self.distributed.processes)
            speed = done / max(time.monotonic() - self.started, 1e-9)
            self.show(Progress(self.state.step, share, self.state.seconds, speed, newest))

    def _save(self) -> None:
        if self.distributed.leads:
            self.state.save(self.folder / FOLDER)
            prune(self.folder / FOLDER, self.recipe.keep)

    def _validate(self) -> None:
        if self.distributed.leads:
            with self.state.ema.in_place() if self.state.ema is not None else nullcontext():
                self.validate(self.state.step)

    def finish(self) -> None:
        """Leave the averages in the module."""
        if (ema := self.state.ema) is not None:
            for weight, average in zip(ema.weights, ema.averages, strict=True):
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
