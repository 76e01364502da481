"""Pictures as they are made: shown, saved, and told of one by one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdscratch.cli.arguments import Arguments
from sdscratch.cli.look import Film, show_picture
from sdscratch.cli.progress import View
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.cli.told import json_of
from sdscratch.errors import SdscratchError
from sdscratch.files import write_stream

if TYPE_CHECKING:
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Event, Picture, Progress, Started
    from sdscratch.images import Record

__all__ = ["Telling", "print_line"]


def print_line(line: str) -> None:
    """Print a result; a path in the bytes it was typed in, whatever the encoding of stdout."""
    write_stream(sys.stdout.buffer, os.fsencode(f"{line}\n"))


class Written(NamedTuple):
    """A picture that is saved, and not told of yet."""

    path: str | None  # None: stdout
    record: Record
    timings: Mapping[str, float]


@dataclass
class Telling:
    """Shows what `generate` tells of, saves the pictures and reports them one by one."""

    arguments: Arguments
    pipeline: Pipeline
    plan: OutputPlan
    view: View
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    writing: Future[Written] | None = None  # the newest picture, until it is told of
    film: Film | None = None
    done: int = 0  # pictures saved and reported

    def all(self, events: Iterable[Event]) -> None:
        """Take every event; the first picture that fails ends the run, and those before it are kept."""
        count = len(self.plan.seeds)
        try:
            with self.writer:
                try:
                    self.take(events)
                finally:
                    self.tell()  # what has been made is kept, after Ctrl-C; if it failed, it failed first
        except SdscratchError as error:
            if self.done == 0:
                raise
            raise SdscratchError(f"picture {self.done + 1} of {count} failed: {error}") from error

    def take(self, events: Iterable[Event]) -> None:
        """Show stages as bars, and hand pictures to the writer."""
        from sdscratch.generation.requests import Failed, Picture, Progress

        with Stages(self.view, self.stage_name) as stages:
            for event in events:
                match event:
                    case Picture():
                        stages.close()
                        self.tell()
                        if self.film is not None:
                            self.film.end(event.image)
                        if self.arguments.show:
                            show_picture(event.image)
                        self.writing = self.writer.submit(self.write, event)
                        if not self.pipeline.placement.batches:
                            self.tell()  # on a CPU the next one takes long, and writing no time to speak of
                    case Failed():
                        raise event.error
                    case _:
                        stages.show(event)
                        if isinstance(event, Progress):
                            self.preview(event)

    def stage_name(self, event: Started) -> str:
        """The stage in words, and which of several pictures it is for."""
        count, name = len(self.plan.seeds), STAGES[event.stage]
        if count == 1 or event.stage == "load":
            return name
        last = f"-{event.first + event.count}" if event.count > 1 else ""
        return f"{name} {event.first + 1}{last}/{count}"

    def preview(self, progress: Progress) -> None:
        """Show the batch's first picture as far as it is, where that was asked for."""
        from sdscratch.images import save_picture

        wanted = self.arguments.preview is not None or self.film is not None
        if progress.denoised is None or not wanted:
            return
        (picture,) = self.pipeline.preview(progress.denoised[:1])
        if self.film is not None:
            self.film.add(picture)
        if self.arguments.preview is not None:
            save_picture(picture, Path(self.arguments.preview), overwrite=True)

    def write(self, picture: Picture) -> Written:
        """Save one picture with its records; on a GPU the next one is made meanwhile."""
        from sdscratch.images import write_sidecar

        record = picture.record()
        arguments = self.arguments
        path = self.plan.save(picture.index, picture.image, None if arguments.strip else record)
        if arguments.sidecar and path is not None:
            write_sidecar(Path(path), record, overwrite=arguments.overwrite)
        return Written(path, record, picture.timings)

    def tell(self) -> None:
        """Say where the picture is that was made last, once it is there, and which seed it has.

        Raises:
            SdscratchError: it could not be written.
        """
        if self.writing is None:
            return
        writing, self.writing = self.writing, None
        path, record, timings = writing.result()
        options = record.options
        if self.arguments.json:
            print_line(json.dumps(json_of(path, record, timings)))
        elif path is not None:
            print_line(path)
        self.done += 1
        self.view.note(f"seed {options.seed}")
