"""What `run` shows while it draws, and prints when a picture is there."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sdscratch.cli.arguments import Arguments
from sdscratch.cli.look import show_picture
from sdscratch.cli.progress import View
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.cli.telling import print_line
from sdscratch.cli.told import json_of
from sdscratch.cli.view import duration
from sdscratch.errors import SdscratchError
from sdscratch.options import random_seed

if TYPE_CHECKING:
    from sdscratch.device import Placement
    from sdscratch.generation.known import Predictions
    from sdscratch.generation.opening import Opened
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Advanced, Event, Progress, Request, Started
    from sdscratch.jobs.journal import Shard
    from sdscratch.jobs.keeping import Saving
    from sdscratch.jobs.names import Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.run import Done
    from sdscratch.jobs.tasks import Models, Overview

__all__ = ["LAUNCHERS", "Pace", "Warm", "draw_all", "draw_stream", "own_device", "placed", "started_together"]

# where torchrun and SLURM say which of how many processes this one is
LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))


class Warm:
    """Draws with one model, which stays loaded until another one is asked for; a context manager."""

    def __init__(self, arguments: Arguments, placement: Placement) -> None:
        self.arguments, self.placement = arguments, placement
        self.opened: Opened | None = None
        self.pipeline: Pipeline | None = None
        self._draw: Callable[[Iterable[Request], int], Iterator[Event]] | None = None
        self._known: Predictions | None = None  # what variants share, of whichever model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        if self.pipeline is not None:
            self.pipeline.__exit__(*raised)

    def __call__(self, opened: Opened, requests: Iterable[Request]) -> Iterator[Event]:
        """What `generate` tells of the requests."""
        from sdscratch.generation.generate import generator
        from sdscratch.generation.pipeline import start

        if self._draw is None or opened is not self.opened:
            self.__exit__()
            self.opened = opened
            self.pipeline = start(opened, self.placement, low_memory=self.arguments.low_memory)
            self._known = self.pipeline.sampling.known = self._known or self.pipeline.sampling.known
            self._draw = generator(self.pipeline)
        yield from self._draw(requests, self.arguments.batch_size)

    def preview(self, event: Any) -> None:
        """Write the picture in hand as far as it is, where that was asked for."""
        if self.arguments.preview is None or getattr(event, "denoised", None) is None:
            return
        from sdscratch.images import save_picture

        assert self.pipeline is not None
        (picture,) = self.pipeline.preview(event.denoised[:1])
        save_picture(picture, Path(self.arguments.preview), overwrite=True)


def saving_of(arguments: Arguments) -> Saving:
    """How pictures are kept."""
    from sdscratch.jobs.keeping import Saving

    return Saving(arguments.strip, arguments.sidecar)


def draw_stream(
    defaults: Mapping[str, Any], folder: Path, template: Template, arguments: Arguments, view: View
) -> None:
    """Draw every line of stdin as it comes; what fails is told of, and the next one is read.

    Raises:
        SdscratchError: some lines failed; says how many.
    """
    from sdscratch.jobs.run import Done, Lost
    from sdscratch.jobs.stream import Refused, Stream
    from sdscratch.jobs.tasks import Models

    failed = done = 0
    with (
        Warm(arguments, placed(arguments, view)) as draw,
        PictureStages(view) as stages,
    ):
        stream = Stream(defaults, random_seed(), folder, template, Models(), draw, saving_of(arguments))
        for event in stream.answers(sys.stdin.buffer):
            match event:
                case Done():
                    stages.close()
                    done += 1
                    tell(event, arguments, view, f"line {event.task.job.number}")
                case Lost() | Refused():
                    stages.close()
                    failed += 1
                    place = f"{event.task.job.place}: " if isinstance(event, Lost) else ""
                    view.error(f"{place}{event.error}")
                case _:
                    stages.show(event)  # type: ignore[arg-type]
                    draw.preview(event)
    if failed:
        raise SdscratchError(f"{failed} of {failed + done} pictures failed; their lines are told above")


def placed(arguments: Arguments, view: View) -> Placement:
    """Where to compute."""
    with view.stage("starting", None):
        from sdscratch.device import choose

        return choose(own_device(arguments.device), arguments.dtype, compiled=arguments.compile)


def draw_all(
    plan: Plan,
    overview: Overview,
    folder: Path,
    template: Template,
    models: Models,
    shard: Shard,
    arguments: Arguments,
    view: View,
) -> int:
    """Draw what is missing; what fails is told of, and the run goes on.

    Returns:
        How many pictures failed.
    """
    from sdscratch.jobs.run import Done, Lost, run_plan

    lost = 0
    pace = Pace(len(range(shard.index, overview.pictures, shard.count)))
    with (
        Warm(arguments, placed(arguments, view)) as draw,
        view.stage("pictures", pace.total, "picture") as advance,
        PictureStages(view) as stages,
    ):
        events = run_plan(plan, overview, folder, template, models, draw, shard, saving_of(arguments))
        for event in events:
            match event:
                case Done() | Lost():
                    stages.close()
                    advance(pace.count(drawn=not (isinstance(event, Done) and event.found)))
                    if isinstance(event, Done):
                        tell(event, arguments, view, f"{event.task.number}/{overview.pictures}", pace)
                    else:
                        lost += 1
                        view.error(f"{event.task.job.place}: {event.error}")
                case _:
                    stages.show(event)  # type: ignore[arg-type]
                    draw.preview(event)
    return lost


class PictureStages(Stages):
    """All stages as bars; in a log only the loading, for there each picture has its line."""

    def __init__(self, view: View) -> None:
        super().__init__(view, lambda event: STAGES[event.stage])

    def show(self, event: Started | Advanced | Progress) -> None:
        """A stage that begins, or goes on."""
        stage = getattr(event, "stage", "load")
        if stage == "load" or self.view.moves:
            super().show(event)
        else:
            self.close()


@dataclass
class Pace:
    """How fast pictures come, and how long the others will take.

    Args:
        total: how many there will be.
    """

    total: int
    done: int = 0
    drawn: int = 0
    _began: float = field(default_factory=time.monotonic)

    def count(self, *, drawn: bool) -> int:
        """One picture more; how many there are."""
        self.done += 1
        self.drawn += drawn
        return self.done

    @property
    def left(self) -> str:
        """In words: ", about 3 min left"; nothing where that is not known."""
        if self.drawn == 0 or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self._began) / self.drawn * (self.total - self.done)
        return f", about {duration(seconds)} left"


def tell(done: Done, arguments: Arguments, view: View, which: str, pace: Pace | None = None) -> None:
    """Say where a picture is."""
    if arguments.json:
        said: dict[str, Any] = {"job": done.task.job.number}
        if done.record is not None:
            said = json_of(str(done.path), done.record, done.timings) | said
        else:
            options = done.task.options
            said |= {"path": str(done.path), "seed": options.seed, "prompt": options.prompt, "done": True}
            said["options"] = asdict(options)
        print_line(json.dumps(said))
    elif not done.found:
        print_line(str(done.path))
    if arguments.show and not done.found:
        from sdscratch.images import read_picture

        show_picture(read_picture(done.path))
    if not done.found:
        seconds = sum(done.timings.get(stage, 0.0) for stage in ("encode", "denoise", "decode"))
        left = "" if pace is None else pace.left
        view.note(f"{which}: seed {done.task.options.seed}, {seconds:.1f} s{left}")


def started_together(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started several processes, all of which it ends when one of them fails."""
    return "TORCHELASTIC_RUN_ID" in environment and environment.get("WORLD_SIZE", "1") != "1"


def own_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """The GPU of this process, where a launcher started several on one machine."""
    for _, size, local in LAUNCHERS:
        if device in ("auto", "cuda") and environment.get(size, "1") != "1" and local in environment:
            import torch

            if torch.cuda.is_available():
                return f"cuda:{int(environment[local]) % torch.cuda.device_count()}"
    return device
