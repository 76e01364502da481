"""Which picture stands at which index of which step, and how it is cropped: functions of (seed, step, index).

Nothing is remembered from step to step, so a resumed run, and any number of processes, see the same.
This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from random import Random
from typing import TypeVar

from sdscratch.training.dataset.buckets import Size

__all__ = ["Plan", "View"]

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A picture as a step sees it."""

    picture: int  # index in the folder
    size: Size
    at: tuple[float, float] = (0.5, 0.5)  # where it is cropped, as `fit_picture` has it
    flipped: bool = False


class Plan:
    """An epoch shows every picture once, in batches from one bucket each, in an order of (seed, epoch).

    A bucket's last batch, if it is not full, is filled with the pictures that came first in that bucket in
    that epoch.

    Args:
        buckets: pictures by the size at which they are seen.
        batch: pictures a step, over all processes.
    """

    def __init__(
        self,
        buckets: Mapping[Size, Sequence[int]],
        batch: int,
        seed: int,
        *,
        random_crop: bool = False,
        random_flip: bool = False,
    ) -> None:
        self.buckets, self.size, self.seed = buckets, batch, seed
        self.random_crop, self.random_flip = random_crop, random_flip
        self.steps = sum(-(-len(members) // batch) for members in buckets.values())  # an epoch
        self._epoch = lru_cache(maxsize=2)(self._order)  # this one, and the next, which is decoded ahead

    def batch(self, step: int) -> tuple[Size, tuple[int, ...]]:
        """The size of step `step`'s pictures, and which they are, by index."""
        epoch, within = divmod(step, self.steps)
        return self._epoch(epoch)[within]

    def view(self, step: int, index: int) -> View:
        """What stands at one index."""
        size, pictures = self.batch(step)
        rng = Random(f"view {self.seed} {step} {index}")
        across, down, side = rng.random(), rng.random(), rng.random()
        return View(
            pictures[index],
            size,
            (across, down) if self.random_crop else (0.5, 0.5),
            self.random_flip and side < 0.5,
        )

    def substitutes(self, view: View) -> Iterator[View]:
        """What takes the place of a view whose picture breaks, in order: the bucket's next pictures.

        They are made as they are asked for: hardly ever, while folders may be large.
        """
        members = self.buckets[view.size]
        index = members.index(view.picture)
        for each in chain(islice(members, index + 1, None), islice(members, index)):
            yield View(each, view.size, view.at, view.flipped)

    def _order(self, epoch: int) -> list[tuple[Size, tuple[int, ...]]]:
        rng = Random(f"epoch {self.seed} {epoch}")
        batches = []
        for size, members in self.buckets.items():
            order = _shuffled(members, rng)
            for start in range(0, len(order), self.size):
                indices = range(start, start + self.size)
                batches.append((size, tuple(order[index % len(order)] for index in indices)))
        return _shuffled(batches, rng)


def _shuffled(items: Sequence[T], rng: Random) -> list[T]:
    """By `random()` alone, which Python promises to keep; its `shuffle` may change between versions."""
    keys = [rng.random() for _ in items]
    return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__)]
