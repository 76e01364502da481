"""Replays drawn: with the device, precision and threads that their records tell; and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from PIL import Image

from sdscratch.device import Placement, choose
from sdscratch.errors import DeviceError
from sdscratch.generation.generate import generate
from sdscratch.generation.pipeline import Pipeline, start
from sdscratch.generation.requests import Event, Failed, Picture, Request
from sdscratch.hardware import device_kind
from sdscratch.images import Record
from sdscratch.images.compare import Likeness, compare
from sdscratch.images.open import opened
from sdscratch.images.write import as_kept
from sdscratch.jobs.keeping import Inits
from sdscratch.jobs.names import DEFAULT, Template
from sdscratch.jobs.plan import Job
from sdscratch.jobs.replay import Replay
from sdscratch.jobs.tasks import Models, model_key, tasks_of

__all__ = ["Drawn", "Redrawer"]

SEVERAL = ("WORLD_SIZE", "SLURM_NTASKS")  # of a process that is one of several


@dataclass(frozen=True)
class Drawn:
    """A picture drawn again.

    Attributes:
        as_kept: the source is, level by level, what its lossy format makes of this picture.
        elsewhere: what of the machine is otherwise than the record says: device, dtype.
    """

    image: Image.Image
    record: Record
    likeness: Likeness
    as_kept: bool
    elsewhere: tuple[str, ...]
    timings: Mapping[str, float]


class Redrawer:
    """Draws one replay after another; the newest model stays loaded. A context manager.

    Args:
        device, dtype: as of `pipeline.load`; "auto" is what the record says, as far as it is here.
    """

    def __init__(self, device: str = "auto", dtype: str = "auto") -> None:
        self.device, self.dtype = device, dtype
        self.models, self.inits = Models(), Inits()
        self.newest: tuple[object, Pipeline] | None = None

    def __enter__(self) -> Redrawer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.newest is not None:
            self.newest[1].__exit__()
            self.newest = None

    def draw(self, replay: Replay) -> Iterator[Event | Drawn]:
        """What `generate` tells, and at the end the picture.

        Raises:
            SdscratchError: it cannot be drawn; says why.
        """
        record = replay.recipe.record
        with as_many_threads(None if record is None else record.threads):
            placement = self.placement(record)
            request = self.request(replay)
            pipeline = self.pipeline(replay.job, placement)
            for event in generate(pipeline, [request]):
                if isinstance(event, Failed):
                    raise event.error
                if not isinstance(event, Picture):
                    yield event
                    continue
                with opened(replay.recipe.source) as source:
                    own, kind = plain(source), source.format or "PNG"
                likeness = compare(own, event.image)
                kept = not likeness.identical and kind != "PNG" and likeness.sizes is None
                kept = kept and compare(own, as_kept(event.image, kind)).identical
                elsewhere = () if record is None else differences(record, placement)
                yield Drawn(event.image, event.record(), likeness, kept, elsewhere, event.timings)

    def placement(self, record: Record | None) -> Placement:
        """Where to draw: as it was asked for, else as the record says, else as always."""
        if record is None:
            return choose(self.device, self.dtype)
        dtype = record.dtype if self.dtype == "auto" else self.dtype
        compiled = bool(record.compiled)
        if self.device != "auto":
            return choose(self.device, dtype, compiled=compiled)
        try:
            return choose(record.device, dtype, compiled=compiled)
        except DeviceError:  # another machine: the distance is told
            return choose("auto", dtype, compiled=compiled)

    def pipeline(self, job: Job, placement: Placement) -> Pipeline:
        """The model of a line, started anew where it is not the newest's."""
        key = (model_key(job), placement.device, placement.dtype_name, placement.compiled)
        if self.newest is None or self.newest[0] != key:
            self.__exit__()
            self.newest = key, start(self.models.opened(model_key(job)), placement)
            self.newest[1].hash_ahead()
        return self.newest[1]

    def request(self, replay: Replay) -> Request:
        """A replay as `generate` takes it: as its line says, with the record's own options where they hold.

        Raises:
            ImageError: the picture to start from cannot be read.
            UsageError: what the model cannot do.
        """
        task = next(tasks_of([replay.job], self.models, Template(DEFAULT)))
        record = replay.recipe.record
        if replay.options is not None and record is not None:
            task = replace(task, options=replay.options, template=record.template)
        return task.request(self.inits(task), self.models.controls(task.job))


def differences(record: Record, placement: Placement) -> tuple[str, ...]:
    """What of the machine is otherwise than a record says."""
    pairs = {
        "device": (record.device, device_kind(placement.device)),
        "dtype": (record.dtype, placement.dtype_name),
    }
    if record.threads is not None and device_kind(placement.device) == "cpu":
        pairs["threads"] = (str(record.threads), str(torch.get_num_threads()))
    return tuple(name for name, (there, here) in pairs.items() if there != here)


def plain(image: Image.Image) -> Image.Image:
    """A picture with its alpha, if it has any, else in RGB."""
    return image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")


@contextmanager
def as_many_threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads; a process that is one of several keeps those that it was given."""
    before = torch.get_num_threads()
    if count is None or any(os.environ.get(name, "1") != "1" for name in SEVERAL):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
