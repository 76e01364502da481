"""The pictures of a plan, with all options settled, and the models they are drawn with; all of it checked."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

from sdscratch.addons.apply import AppliedLora, with_loras
from sdscratch.addons.control import OpenedControl, open_controls
from sdscratch.addons.requests import LoraRequest, take_loras
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.inits import Given, drawn_size, read_given
from sdscratch.generation.opening import Opened, open_all
from sdscratch.generation.requests import Init, Request
from sdscratch.images import TemplateRecord, parse_colour
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Job, Plan
from sdscratch.options import Fit, GenerateOptions, ResolvedOptions, numbered_seeds

__all__ = [
    "GivenKey",
    "ModelKey",
    "Models",
    "Overview",
    "Task",
    "given_key",
    "given_of",
    "look_over",
    "model_key",
    "tasks_of",
]

MODELS_OPEN = 4  # files of models that stay open: headers alone
HINTS_OPEN = 16  # hints that stay in memory

GivenKey = tuple[str, str | None, str | None, Fit, str, bool, str | None]
ModelKey = tuple[str, str | None, tuple[str, ...], str | None, tuple[str, ...], str | None]


@dataclass(frozen=True)
class Task:
    """One picture of a plan."""

    number: int  # in the plan, from 1
    job: Job
    options: ResolvedOptions
    name: str  # the file's
    template: TemplateRecord | None = None  # where its prompts had wildcards

    def request(self, init: Init | None, controls: tuple[OpenedControl, ...] = ()) -> Request:
        """As `generate` takes it."""
        return Request(self.options, init, controls, template=self.template)


@dataclass(frozen=True)
class Overview:
    """What a plan comes to."""

    jobs: int
    pictures: int
    models: tuple[ModelKey, ...]  # in the order in which they are met
    steps: int  # of all pictures
    largest: tuple[int, int]  # width and height that no picture exceeds
    copies: int | None  # pictures of each job, where all have as many


class Models:
    """The models of a plan as files, each opened and checked once, the newest kept."""

    def __init__(self) -> None:
        self.opened = lru_cache(MODELS_OPEN)(open_key)
        self._controls = lru_cache(HINTS_OPEN)(self._opened_controls)
        self._with = lru_cache(MODELS_OPEN * 8)(self._with_tags)  # by keys: files have no hash

    def files(self, job: Job) -> ModelFiles:
        """The model that a job is drawn with.

        Raises:
            CheckpointError: as `open_with_addons`.
        """
        return self.opened(model_key(job)).files

    def changes(self, job: Job, prompt: str) -> tuple[AppliedLora, ...]:
        """Its add-ons, those of a prompt's tags included."""
        files = self.files(job)
        tags = take_loras(prompt)[1]
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

    def _with_tags(self, key: ModelKey, tags: tuple[LoraRequest, ...]) -> ModelFiles:
        return with_loras(self.opened(key).files, tags)


def open_key(key: ModelKey) -> Opened:
    """The model with that key."""
    model, tokenizer, lora, vae, embedding, taesd = key
    return open_all(model, tokenizer=tokenizer, lora=lora, vae=vae, embedding=embedding, taesd=taesd)


def model_key(job: Job) -> ModelKey:
    """What says which model a job is drawn with."""
    source = job.source
    return source.model, source.tokenizer, source.lora, source.vae, source.embedding, source.taesd


def tasks_of(
    jobs: Iterable[Job],
    models: Models,
    template: Template,
    *,
    before: int = 0,
    taken: Callable[[str], bool] = lambda name: False,
) -> Iterator[Task]:
    """Every picture of some jobs, with all options settled.

    Args:
        before: the number of the picture before the first.
        taken: whether something has that name; the next number is then tried, where names have one.

    Raises:
        SdscratchError: a model, an add-on or an init picture is missing or refused; names the line.
    """
    number = before
    sizes = lru_cache(1024)(looked_at)
    for job in jobs:
        try:
            files = models.files(job)
            for resolved, template_record in settled(job, models, sizes):
                number += 1
                values = {**vars(resolved), "n": number, "job": job.number, "model": files.name}
                name = template.name(values)
                while template.numbers and taken(name):
                    number += 1
                    name = template.name(values | {"n": number})
                yield Task(number, job, resolved, name, template_record)
        except SdscratchError as error:
            told = str(error).removeprefix(f"{job.place}: ")
            raise type(error)(f"{job.place}: {told}") from error


def settled(
    job: Job, models: Models, sizes: Callable[[GivenKey, bool], tuple[int, int]]
) -> Iterator[tuple[ResolvedOptions, TemplateRecord | None]]:
    """Every picture of a job with all its options, and the template of its prompts."""

    def resolve(options: GenerateOptions) -> ResolvedOptions:
        models.changes(job, options.prompt)
        models.controls(job)
        if options.decoder == "tiny":
            _ = models.opened(model_key(job)).tiny
        if job.source.init_img is not None:
            options = drawn_size(
                options,
                sizes(given_key(job), options.mask_invert),
                models.files(job).defaults,
                masked=job.source.mask is not None or job.source.extend is not None,
                extend=job.source.extend,
            )
        return models.files(job).resolve(options, options.seed)

    if job.expanded is not None:
        for options, template in job.pictures():
            yield resolve(options), template
        return
    first = resolve(job.options)
    for index in range(job.source.batch_count):
        seeds = numbered_seeds(first.seed, first.variation_seed, index)
        yield replace(first, **seeds), None  # type: ignore[arg-type]


def given_key(job: Job) -> GivenKey:
    """What says which pictures a job with an init picture starts from."""
    source = job.source
    init, by = source.init_img or "", source.init_upscaler
    return init, source.mask, source.extend, source.fit, source.background, source.strict, by


def given_of(key: GivenKey) -> Given:
    """The pictures of that key.

    Raises:
        ImageError: one is missing, unreadable or refused.
    """
    init, mask, extend, fit, background, strict, by = key
    return read_given(init, mask, extend, fit=fit, background=background, strict=strict, upscaler=by)


def looked_at(key: GivenKey, invert: bool) -> tuple[int, int]:
    """An init picture's sides; reads it whole, so that a damaged one is said before the first picture.

    Raises:
        UsageError: borders or a colour that make no sense.
        ImageError: it or its mask is missing, damaged or refused.
    """
    given = given_of(key)
    parse_colour(given.background)
    given.check(invert=invert)
    return given.whole.size


def look_over(
    plan: Plan, models: Models, template: Template, seen: Callable[[Task], None] = lambda task: None
) -> Overview:
    """Go through the whole plan, and check all of it.

    Args:
        seen: told of every picture.

    Raises:
        SdscratchError: what is wrong with a line, by its place; two pictures of one name.
    """
    jobs = pictures = steps = width = height = own = 0
    keys: dict[ModelKey, None] = {}
    copies: set[int] = set()
    names = array("Q")
    for task in tasks_of(plan, models, template):
        if task.job.number != jobs and jobs:
            copies.add(own)
            own = 0
        own += 1
        options = task.options
        jobs, pictures, steps = task.job.number, pictures + 1, steps + options.steps
        width, height = max(width, options.width), max(height, options.height)
        keys[model_key(task.job)] = None
        if not template.numbers:
            names.append(_name_hash(task.name))
        seen(task)
    if not pictures:
        raise UsageError(f"{plan.path} asks for no picture")
    _refuse_equal_names(names, plan, models, template)
    copies.add(own)
    shared = copies.pop() if len(copies) == 1 else None
    return Overview(jobs, pictures, tuple(keys), steps, (width, height), shared)


def _name_hash(name: str) -> int:
    """Eight bytes for a name as file systems compare it: of a million names, all can be held."""
    return int.from_bytes(blake2b(name.casefold().encode(), digest_size=8).digest(), "big")


def _refuse_equal_names(names: array[int], plan: Plan, models: Models, template: Template) -> None:
    """Find the line whose picture would be called as another one is, if there is one."""
    ordered = sorted(names)
    equal = {one for one, other in pairwise(ordered) if one == other}
    if not equal:
        return
    first: set[int] = set()
    for task in tasks_of(plan, models, template):
        mark = _name_hash(task.name)
        if mark in first:
            raise UsageError(
                f"{task.job.place}: a second picture would be called {task.name}; "
                "put {n} into --name, which numbers them"
            )
        if mark in equal:
            first.add(mark)
