"""Drawing a plan: checked whole, one loading a model, nothing lost and nothing twice.

A picture is done when it is in its folder under its name and the journal says so, in that order. What the
journal does not say is drawn again, unless the very picture is there: then only the line is added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sdscratch.addons.control import OpenedControl
from sdscratch.errors import SdscratchError
from sdscratch.generation.generate import vae_record
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Init, Picture, Request
from sdscratch.images import Record
from sdscratch.jobs.journal import FAILED, Journal, Shard, picture_key
from sdscratch.jobs.keeping import Inits, Saving, keep_failed
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Plan
from sdscratch.jobs.tasks import ModelKey, Models, Overview, Task, model_key, tasks_of
from sdscratch.jobs.variants import with_variants

__all__ = ["Done", "Lost", "Outcome", "run_plan"]


@dataclass(frozen=True)
class Done:
    """A picture is there: drawn now, or found."""

    task: Task
    path: Path
    record: Record | None  # None where it was found
    timings: Mapping[str, float]
    found: bool


@dataclass(frozen=True)
class Lost:
    """A picture could not be drawn."""

    task: Task
    error: SdscratchError


Outcome = Done | Lost
Draw = Callable[[Opened, Iterator[Request]], Iterator[Event]]


@dataclass
class _Run:
    """One process's way through a plan."""

    plan: Plan
    folder: Path
    template: Template
    shard: Shard
    models: Models
    draw: Draw
    journal: Journal
    save: Saving
    fed: deque[tuple[Task, str]] = field(default_factory=deque)  # asked of `draw`, and not answered yet
    found: deque[Done] = field(default_factory=deque)  # found done, and not told of yet
    inits: Inits = field(default_factory=Inits)

    def all(self, overview: Overview) -> Iterator[Event | Outcome]:
        """Every model's pictures; the plan is gone through once for each."""
        for key in overview.models:
            yield from self._events(self.draw(self.models.opened(key), self._requests(key)))
        yield from self._told()

    def _told(self) -> Iterator[Done]:
        while self.found:
            yield self.found.popleft()

    def _requests(self, key: ModelKey) -> Iterator[Request]:
        """What is missing of one model's pictures."""
        own = (
            task
            for task in tasks_of(self.plan, self.models, self.template)
            if self.shard.has(task.job.number)
        )
        for task, variants in with_variants(own):
            if model_key(task.job) != key:
                continue
            init, controls = self.inits(task), self.models.controls(task.job)
            digest = self._key(task, init, controls)
            path = self.folder / task.name
            if self.journal.done.get(digest) == task.name:
                self.found.append(Done(task, path, None, {}, found=True))
                continue
            self.fed.append((task, digest))
            yield replace(task.request(init, controls), variants=variants)

    def _key(self, task: Task, init: Init | None, controls: Sequence[OpenedControl]) -> str:
        opened = self.models.opened(model_key(task.job))
        files = opened.files
        steering = [control.record().to_record() for control in controls]
        return picture_key(
            {
                **({"controls": steering} if steering else {}),
                "options": asdict(task.options),
                "model": files.hash(),
                **({"taesd": opened.tiny.hash} if task.options.decoder == "tiny" else {}),
                "vae": None if (vae := vae_record(files)) is None else vae.hash,
                "embeddings": [each.digest() for each in opened.embeddings],
                "changes": [change.record() for change in self.models.changes(task.job, task.options.prompt)],
                **({} if task.template is None else {"template": asdict(task.template)}),
                "init": None if init is None else [init.hash, init.fit, task.job.source.background],
                **({} if init is None or init.upscaler is None else {"upscaler": asdict(init.upscaler)}),
                # what is new is said where it is there alone, so that runs begun before it go on
                **({} if init is None or init.repaint is None else {"mask": init.repaint.record.to_record()}),
            }
        )

    def _events(self, events: Iterable[Event]) -> Iterator[Event | Outcome]:
        for event in events:
            yield from self._told()
            match event:
                case Picture():
                    task, digest = self.fed.popleft()
                    record = event.record()
                    path = self.save(event.image, record, self.folder / task.name)
                    self.journal.add(digest, task.name, task.job.number)
                    yield Done(task, path, record, event.timings, found=False)
                case Failed():
                    for _ in event.requests:
                        task, _ = self.fed.popleft()
                        keep_failed(self.folder, self.shard, task)
                        self.journal.add_failed(task.name, task.job.number)
                        yield Lost(task, event.error)
                case _:
                    yield event


def run_plan(
    plan: Plan,
    overview: Overview,
    folder: Path,
    template: Template,
    models: Models,
    draw: Draw,
    shard: Shard | None = None,
    saving: Saving | None = None,
) -> Iterator[Event | Outcome]:
    """Draw what is missing of a plan that `look_over` has checked.

    Args:
        folder: where the pictures go; `journal.held` keeps others out of it.
        draw: what to draw with, and requests → what `generate` tells of them.
        saving: how pictures are kept.

    Yields:
        What `generate` tells, and a `Done` or `Lost` for every picture of this shard.

    Raises:
        SdscratchError: a picture or the journal cannot be written; what is done stays done.
    """
    shard = shard or Shard()
    failed = folder / shard.named(FAILED.removesuffix(".jsonl"))
    failed.unlink(missing_ok=True)  # it is tried again
    with Journal(folder, shard) as journal:
        saving = saving or Saving()
        yield from _Run(plan, folder, template, shard, models, draw, journal, saving).all(overview)
