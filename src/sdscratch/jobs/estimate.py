"""How long a plan will take: its work counted, and a little of it drawn to see how fast that goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Picture, Progress, Request
from sdscratch.jobs.keeping import Inits
from sdscratch.jobs.tasks import ModelKey, Models, Task, model_key
from sdscratch.options import ResolvedOptions

__all__ = ["Work"]

STEPS = 2  # of a picture that is drawn for its time
LONG = 4.0  # seconds: what takes so long is not slower because it is the first
MEASURED = 3  # models; the others are taken to be as fast


@dataclass
class Amount:
    """One model's share.

    Attributes:
        pictures: how many.
        pixels: in all pictures.
        evaluations: pixels times how often the U-Net is asked.
        first: a picture of it.
    """

    first: Task
    pictures: int = 0
    pixels: int = 0
    evaluations: float = 0.0


@dataclass(frozen=True)
class Speed:
    """Seconds: of a loading, a picture's texts, a pixel's decoding, and a pixel's evaluation."""

    load: float
    encode: float
    decode: float
    evaluation: float


@dataclass
class Work:
    """What there is to draw, by model."""

    amounts: dict[ModelKey, Amount] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        """One picture more."""
        amount = self.amounts.setdefault(model_key(task.job), Amount(task))
        amount.pictures += 1
        amount.pixels += task.options.width * task.options.height
        amount.evaluations += _evaluations(task.options, task) * task.options.width * task.options.height

    def seconds(self, models: Models, draw: Callable[[Opened, Iterable[Request]], Iterator[Event]]) -> float:
        """About how long all of it takes.

        Raises:
            SdscratchError: a picture cannot be drawn.
        """
        total, speed = 0.0, None
        for number, (key, amount) in enumerate(self.amounts.items()):
            if speed is None or number < MEASURED:
                speed = _speed(amount.first, models.opened(key), draw)
            total += speed.load + amount.pictures * speed.encode
            total += amount.pixels * speed.decode + amount.evaluations * speed.evaluation
        return total


def _evaluations(options: ResolvedOptions, task: Task) -> float:
    """How often the U-Net is asked, about: a sampler's n, 2n-1, 3n-2, …"""
    asked = SAMPLERS[options.sampler].denoisings
    share = 1.0 if task.job.source.init_img is None else options.strength
    return options.steps * share * (int(asked[0]) if asked[0].isdigit() else 1)


def _speed(task: Task, opened: Opened, draw: Callable[[Opened, Iterable[Request]], Iterator[Event]]) -> Speed:
    """From a small part of one picture, and where that was quick from another, which nothing delays."""
    request = replace(
        task.request(Inits()(task)), options=replace(task.options, steps=min(STEPS, task.options.steps))
    )
    load = 0.0
    for _ in range(2):
        total = 0
        for event in draw(opened, [request]):
            match event:
                case Progress():
                    total = event.total
                case Failed():
                    raise event.error
                case Picture():
                    timings = event.timings
        load = load or timings.get("load", 0.0)
        options = request.options
        pixels = options.width * options.height
        asked = SAMPLERS[options.sampler].denoisings
        each = total * (int(asked[0]) if asked[0].isdigit() else 1)
        denoise = timings.get("denoise", 0.0)
        speed = Speed(load, timings["encode"], timings["decode"] / pixels, denoise / (max(each, 1) * pixels))
        if denoise > LONG:
            break
    return speed
