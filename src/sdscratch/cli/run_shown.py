"""What `run` shows while it draws, and prints when a picture is there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sdscratch.cli.arguments import Arguments
from sdscratch.cli.generate import json_of, print_line
from sdscratch.cli.progress import View
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.errors import SdscratchError
from sdscratch.options import random_seed

if TYPE_CHECKING:
    from sdscratch.device import Placement
    from sdscratch.generation.opening import Opened
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Event, Request
    from sdscratch.jobs.journal import Shard
    from sdscratch.jobs.names import Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.run import Done
    from sdscratch.jobs.tasks import Models, Overview

__all__ = ["LAUNCHERS", "draw_all", "draw_stream"]

# where torchrun and SLURM say which of how many processes this one is
LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))


class Warm:
    """Draws with one model, which stays loaded until another one is asked for; a context manager."""

    def __init__(self, arguments: Arguments, placement: Placement) -> None:
        self.arguments, self.placement = arguments, placement
        self.opened: Opened | None = None
        self.pipeline: Pipeline | None = None
        self._draw: Callable[[Iterable[Request], int], Iterator[Event]] | None = None

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
            self._draw = generator(self.pipeline)
        yield from self._draw(requests, self.arguments.batch_size)


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
        Stages(view, lambda event: STAGES[event.stage]) as stages,
    ):
        stream = Stream(defaults, random_seed(), folder, template, Models(), draw)
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
) -> None:
    """Draw what is missing; what fails is told of, and the run goes on.

    Raises:
        SdscratchError: some pictures failed; says how many.
    """
    from sdscratch.jobs.run import Done, Lost, run_plan

    lost = finished = 0
    with (
        Warm(arguments, placed(arguments, view)) as draw,
        view.stage("pictures", overview.pictures, "picture") as advance,
        Stages(view, lambda event: STAGES[event.stage]) as stages,
    ):
        for event in run_plan(plan, overview, folder, template, models, draw, shard):
            match event:
                case Done() | Lost():
                    stages.close()
                    finished += 1
                    advance(finished)
                    if isinstance(event, Done):
                        tell(event, arguments, view, f"{event.task.number}/{overview.pictures}")
                    else:
                        lost += 1
                        view.error(f"{event.task.job.place}: {event.error}")
                case _:
                    stages.show(event)  # type: ignore[arg-type]
    if lost:
        raise SdscratchError(
            f"{lost} of {finished} pictures failed; their lines are kept in {folder}, failed.jsonl"
        )


def tell(done: Done, arguments: Arguments, view: View, which: str) -> None:
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
    if not done.found:
        view.note(f"{which}: seed {done.task.options.seed}")


def own_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """The GPU of this process, where a launcher started several on one machine."""
    for _, size, local in LAUNCHERS:
        if device in ("auto", "cuda") and environment.get(size, "1") != "1" and local in environment:
            import torch

            if torch.cuda.is_available():
                return f"cuda:{int(environment[local]) % torch.cuda.device_count()}"
    return device
