"""Drawing a plan: checked whole, one loading a model, nothing lost and nothing twice.

A picture is done when it is in its folder under its name and the journal says so, in that order. What the
journal does not say is drawn again, unless the very picture is there: then only the line is added.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from PIL.Image import Image

from sdscratch.addons.apply import AppliedLora, with_loras
from sdscratch.addons.control import OpenedControl, open_controls
from sdscratch.addons.requests import LoraRequest, take_loras
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.generate import vae_record
from sdscratch.generation.opening import Opened, open_all
from sdscratch.generation.requests import Event, Failed, Init, Picture, Request
from sdscratch.images import Record, fit_picture, picture_hash, read_picture, read_records, save_picture
from sdscratch.jobs.journal import FAILED, Journal, Shard, append, picture_key
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Job, Plan
from sdscratch.options import ResolvedOptions, fit_of_init, size_of_init

__all__ = ["Done", "Lost", "Models", "Outcome", "Overview", "Task", "look_over", "run_plan", "tasks_of"]

MODELS_OPEN = 4  # files of models that stay open: headers alone
HINTS_OPEN = 16  # hints that stay in memory

ModelKey = tuple[str, str | None, tuple[str, ...], str | None, tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One picture of a plan."""

    number: int  # in the plan, from 1
    job: Job
    options: ResolvedOptions
    name: str  # the file's

    def request(self, init: Init | None, controls: tuple[OpenedControl, ...] = ()) -> Request:
        """As `generate` takes it."""
        return Request(self.options, init, controls)


@dataclass(frozen=True)
class Overview:
    """What a plan comes to."""

    jobs: int
    pictures: int
    models: tuple[ModelKey, ...]  # in the order in which they are met
    steps: int  # of all pictures


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


class Models:
    """The models of a plan as files, each opened and checked once, the newest kept."""

    def __init__(self) -> None:
        self.opened = lru_cache(MODELS_OPEN)(open_key)
        self._tagged = lru_cache(MODELS_OPEN * 8)(with_loras)
        self._controls = lru_cache(HINTS_OPEN)(self._opened_controls)

    def files(self, job: Job) -> ModelFiles:
        """The model that a job is drawn with.

        Raises:
            CheckpointError: as `open_with_addons`.
        """
        return self.opened(model_key(job)).files

    def changes(self, job: Job) -> tuple[AppliedLora, ...]:
        """Its add-ons, those of the prompt's tags included."""
        files = self.files(job)
        tags = take_loras(job.options.prompt)[1]
        applied = self._with(model_key(job), tags) if tags else files
        return tuple(change for change in applied.changes if isinstance(change, AppliedLora))

    def controls(self, job: Job) -> tuple[OpenedControl, ...]:
        """Its controls with their hints; the very ones for lines that say the same.

        Raises:
            CheckpointError, ImageError: as `open_controls`.
        """
        source = job.source
        return self._controls(model_key(job), source.control, source.background) if source.control else ()

    def _opened_controls(
        self, key: ModelKey, controls: tuple[str, ...], background: str
    ) -> tuple[OpenedControl, ...]:
        return open_controls(controls, self.opened(key).files, background)

    def _with(self, key: ModelKey, tags: tuple[LoraRequest, ...]) -> ModelFiles:
        return self._tagged(self.opened(key).files, tags)


def open_key(key: ModelKey) -> Opened:
    """The model with that key."""
    model, tokenizer, lora, vae, embedding = key
    return open_all(model, tokenizer=tokenizer, lora=lora, vae=vae, embedding=embedding)


def model_key(job: Job) -> ModelKey:
    """What says which model a job is drawn with."""
    source = job.source
    return source.model, source.tokenizer, source.lora, source.vae, source.embedding


def tasks_of(jobs: Iterable[Job], models: Models, template: Template) -> Iterator[Task]:
    """Every picture of some jobs, with all options settled.

    Raises:
        SdscratchError: a model, an add-on or an init picture is missing or refused; names the line.
    """
    number = 0
    sizes = lru_cache(1024)(init_size)
    for job in jobs:
        try:
            files = models.files(job)
            models.changes(job)
            models.controls(job)
            options = job.options
            if job.source.init_img is not None:
                options = size_of_init(options, sizes(job.source.init_img, job.source.background))
            first = files.resolve(options, options.seed)
        except SdscratchError as error:
            raise type(error)(f"{job.place}: {error}") from error
        for index in range(job.source.batch_count):
            number += 1
            resolved = replace(first, seed=first.seed + index)
            values = {**asdict(resolved), "n": number, "job": job.number, "model": files.name}
            yield Task(number, job, resolved, template.name(values))


def init_size(path: str, background: str) -> tuple[int, int]:
    """An init picture's sides; reads it whole, so that a damaged one is said before the first picture."""
    return read_picture(path, background).size


def look_over(
    plan: Plan, models: Models, template: Template, seen: Callable[[Task], None] = lambda task: None
) -> Overview:
    """Go through the whole plan, and check all of it.

    Args:
        seen: told of every picture.

    Raises:
        SdscratchError: what is wrong with a line, by its place; two pictures of one name.
    """
    jobs = pictures = steps = 0
    keys: dict[ModelKey, None] = {}
    names: Counter[str] = Counter()
    for task in tasks_of(plan, models, template):
        jobs, pictures, steps = task.job.number, pictures + 1, steps + task.options.steps
        keys[model_key(task.job)] = None
        if not template.numbers:
            names[task.name.casefold()] += 1
            if names[task.name.casefold()] > 1:
                raise UsageError(
                    f"{task.job.place}: a second picture would be called {task.name}; "
                    "put {n} into --name, which numbers them"
                )
        seen(task)
    if not pictures:
        raise UsageError(f"{plan.path} asks for no picture")
    return Overview(jobs, pictures, tuple(keys), steps)


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
    fed: deque[tuple[Task, str]] = field(default_factory=deque)  # asked of `draw`, and not answered yet
    found: deque[Done] = field(default_factory=deque)  # found done, and not told of yet
    init: tuple[tuple[object, ...], Init] | None = None  # the newest init picture, fitted

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
        for task in tasks_of(self.plan, self.models, self.template):
            if model_key(task.job) != key or not self.shard.has(task.job.number):
                continue
            init, controls = self._init(task), self.models.controls(task.job)
            digest = self._key(task, init, controls)
            path = self.folder / task.name
            if self.journal.done.get(digest) == task.name:
                self.found.append(Done(task, path, None, {}, found=True))
                continue
            self.fed.append((task, digest))
            yield task.request(init, controls)

    def _key(self, task: Task, init: Init | None, controls: Sequence[OpenedControl]) -> str:
        opened = self.models.opened(model_key(task.job))
        files = opened.files
        steering = [control.record().to_record() for control in controls]
        return picture_key(
            {
                **({"controls": steering} if steering else {}),
                "options": asdict(task.options),
                "model": files.hash(),
                "vae": None if (vae := vae_record(files)) is None else vae.hash,
                "embeddings": [each.digest() for each in opened.embeddings],
                "changes": [change.record() for change in self.models.changes(task.job)],
                "init": None if init is None else [init.hash, init.fit, task.job.source.background],
            }
        )

    def _init(self, task: Task) -> Init | None:
        source, options = task.job.source, task.options
        if source.init_img is None:
            return None
        fit = fit_of_init(task.job.options, source.fit)
        key = (source.init_img, source.background, fit, options.width, options.height)
        if self.init is None or self.init[0] != key:
            picture = read_picture(source.init_img, source.background)
            fitted = fit_picture(picture, options.width, options.height, fit, source.background)
            self.init = key, Init(fitted, fit, picture_hash(picture))
        return self.init[1]

    def _events(self, events: Iterable[Event]) -> Iterator[Event | Outcome]:
        for event in events:
            yield from self._told()
            match event:
                case Picture():
                    task, digest = self.fed.popleft()
                    record = event.record()
                    path = self.save(event.image, record, task)
                    self.journal.add(digest, task.name, task.job.number)
                    yield Done(task, path, record, event.timings, found=False)
                case Failed():
                    for _ in event.requests:
                        task, _ = self.fed.popleft()
                        self.lose(task)
                        yield Lost(task, event.error)
                case _:
                    yield event

    def save(self, image: Image, record: Record, task: Task) -> Path:
        """Write a picture; the very one may be there from a run that ended before it noted it.

        Raises:
            UsageError: something else has its name.
            SdscratchError: it cannot be written.
        """
        path = self.folder / task.name
        if path.exists() and read_records(path).record == record:
            return path
        save_picture(image, path, record)
        return path

    def lose(self, task: Task) -> None:
        """Keep a line that failed, in a form that can be run again."""
        path = self.folder / self.shard.named(FAILED.removesuffix(".jsonl"))
        said = dict(task.job.said) | {"seed": task.options.seed, "batch_count": 1}
        try:
            with path.open("ab") as file:
                append(file, path, said)
        except OSError as error:
            raise SdscratchError(f"cannot write {path}: {error.strerror}") from error


def run_plan(
    plan: Plan,
    overview: Overview,
    folder: Path,
    template: Template,
    models: Models,
    draw: Draw,
    shard: Shard | None = None,
) -> Iterator[Event | Outcome]:
    """Draw what is missing of a plan that `look_over` has checked.

    Args:
        folder: where the pictures go; `journal.held` keeps others out of it.
        draw: what to draw with, and requests → what `generate` tells of them.

    Yields:
        What `generate` tells, and a `Done` or `Lost` for every picture of this shard.

    Raises:
        SdscratchError: a picture or the journal cannot be written; what is done stays done.
    """
    shard = shard or Shard()
    failed = folder / shard.named(FAILED.removesuffix(".jsonl"))
    failed.unlink(missing_ok=True)  # it is tried again
    with Journal(folder, shard) as journal:
        yield from _Run(plan, folder, template, shard, models, draw, journal).all(overview)
