"""Lines as they come, each drawn before the next is read: for a pipe whose other end waits for the answer.

A line is a prompt, the web UI's or kohya's options, or a JSON object. Nothing is drawn ahead and nothing is
resumed: what comes again is drawn again, under the next free number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Picture, Request
from sdscratch.jobs.journal import Shard
from sdscratch.jobs.keeping import Inits, Saving, keep_failed
from sdscratch.jobs.lines import read_line
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Job, job_of, json_line
from sdscratch.jobs.run import Done, Lost, Outcome
from sdscratch.jobs.tasks import Models, Task, model_key, tasks_of
from sdscratch.jobs.wildcards import Expander
from sdscratch.texts import NotText, decode

__all__ = ["Refused", "Stream"]

JSON = re.compile(r'\s*\{\s*["}]')


@dataclass(frozen=True)
class Refused:
    """A line that asks for what there is not."""

    job: int
    error: SdscratchError


@dataclass
class Stream:
    """What is asked of every line.

    Args:
        defaults: fields of every line that does not say otherwise.
        seed: what seeds come from where no line asks for one.
        folder: where the pictures go.
        template: their names; where one is taken, the next number counts.
        draw: a model and requests → what `generate` tells of them; keeps the model for the next line.
        saving: how pictures are kept.
    """

    defaults: Mapping[str, Any]
    seed: int
    folder: Path
    template: Template
    models: Models
    draw: Callable[[Opened, Iterable[Request]], Iterator[Event]]
    saving: Saving = field(default_factory=Saving)
    place: str = "stdin"
    number: int = 0  # of the newest picture
    expander: Expander = field(default_factory=Expander)
    inits: Inits = field(default_factory=Inits)

    def answers(self, lines: BinaryIO) -> Iterator[Event | Outcome | Refused]:
        """Draw every line as it comes, until there are no more.

        Yields:
            What `generate` tells, a `Done` or `Lost` for every picture, a `Refused` for a line without.
        """
        job = 0
        for index, line in enumerate(iter(lines.readline, b""), start=1):
            place = f"{self.place}, line {index}"
            try:
                said = self._said(line, place)
                if said is None:
                    continue
            except SdscratchError as error:
                job += 1
                yield Refused(job, error)
                continue
            job += 1
            try:
                yield from self._drawn(job_of(job, place, said, self.defaults, self.seed, self.expander))
            except SdscratchError as error:
                yield Refused(job, error)

    def _said(self, line: bytes, place: str) -> Mapping[str, Any] | None:
        """What a line asks for; None where it is empty or a comment."""
        try:
            text = decode(line, f"on {place}")
        except NotText as error:
            raise UsageError(str(error)) from None
        return json_line(text, place) if JSON.match(text) else read_line(text, place)

    def _drawn(self, job: Job) -> Iterator[Event | Outcome]:
        """One line's pictures; all of it is checked before the first."""
        tasks = list(
            tasks_of(
                [job],
                self.models,
                self.template,
                before=self.number,
                taken=lambda name: (self.folder / name).exists(),
            )
        )
        controls = self.models.controls(job)
        requests = [task.request(self.inits(task), controls) for task in tasks]
        left = iter(tasks)
        for event in self.draw(self.models.opened(model_key(job)), requests):
            match event:
                case Picture():
                    yield self._saved(next(left), event)
                case Failed():
                    for _ in event.requests:
                        yield self._lost(next(left), event.error)
                case _:
                    yield event

    def _saved(self, task: Task, picture: Picture) -> Outcome:
        self.number = task.number
        record = picture.record()
        try:
            path = self.saving(picture.image, record, self.folder / task.name)
        except SdscratchError as error:
            return self._lost(task, error)
        return Done(task, path, record, picture.timings, found=False)

    def _lost(self, task: Task, error: SdscratchError) -> Lost:
        keep_failed(self.folder, Shard(), task)
        return Lost(task, error)
