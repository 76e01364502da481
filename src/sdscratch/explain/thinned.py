"""A few of many, evenly: what is kept of a run whose length nobody knows beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Thinned"]

T = TypeVar("T")


class Thinned(Generic[T]):
    """At most `most` of the values added, in equal strides, and always the first and the newest.

    When there are too many, every other one is let go: memory stays bounded, and what is kept stays even.
    """

    def __init__(self, most: int) -> None:
        self.most = max(most, 2)
        self.count = 0  # values added
        self._stride = 1
        self._kept: dict[int, T] = {}

    def add(self, value: T) -> None:
        """Add the next value."""
        newest, self.count = self.count, self.count + 1
        if newest and (newest - 1) % self._stride:
            del self._kept[newest - 1]  # stood there only as the newest
        self._kept[newest] = value
        while len(self._kept) > self.most:
            self._stride *= 2
            kept = self._kept.items()
            self._kept = {index: each for index, each in kept if index % self._stride == 0 or index == newest}

    def __len__(self) -> int:
        return len(self._kept)

    def items(self) -> Iterator[tuple[int, T]]:
        """Each value's number, from 0, and the value, in order."""
        yield from self._kept.items()

    def values(self) -> list[T]:
        """The values in order."""
        return list(self._kept.values())

    def nearest(self, index: int) -> int:
        """The number, among those kept, that is nearest to this one; the earlier of two.

        Raises:
            ValueError: nothing is kept.
        """
        return min(self._kept, key=lambda kept: (abs(kept - index), kept))
