"""A folder of pictures as the trainer's source: decoded in the background, framed, in batches of one size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from torch import Tensor

from sdscratch.errors import ImageError, UsageError
from sdscratch.images import fit_picture, read_picture
from sdscratch.training.dataset.buckets import (
    Size,
    bucket_of,
    bucket_step,
    bucket_table,
    fill_buckets,
    too_small,
)
from sdscratch.training.dataset.captions import COLUMNS, Skipped
from sdscratch.training.dataset.folder import Folder, Picture, read_folder, write_skipped
from sdscratch.training.dataset.plan import Plan, View
from sdscratch.training.dataset.source import Batch

__all__ = ["Ahead", "FolderSource", "Framing", "framed", "open_folder", "to_tensor"]

AHEAD = 2  # steps that are decoded before they are asked for

T = TypeVar("T")
Levels = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class Framing:
    """How pictures become batches."""

    resolution: int  # pixels; what a square picture is trained at
    batch: int  # pictures a step, over all processes and accumulated parts
    seed: int = 0
    multiple: int = 8  # what the networks need sides to be multiples of
    buckets: bool = True  # by aspect ratio; without, all pictures are cropped to squares
    center_crop: bool = False  # else what is left over is cropped at random
    random_flip: bool = False  # left and right, every second time

    @property
    def table(self) -> tuple[Size, ...]:
        """The sizes of its buckets.

        Raises:
            UsageError: `resolution` is no multiple of `multiple`.
        """
        square = (self.resolution, self.resolution)
        sizes = bucket_table(self.resolution, bucket_step(self.resolution, self.multiple))
        return sizes if self.buckets else (square,)


def open_folder(
    root: Path,
    framing: Framing,
    *,
    captioned: bool = True,
    columns: Sequence[str] = COLUMNS,
    validation: Path | float = 0.0,
    threads: int = 2,
) -> FolderSource:
    """A folder of pictures to train on.

    Args:
        captioned: Skip pictures without a caption; else theirs is empty.
        columns: The columns of metadata tables that hold captions.
        validation: A folder of pictures to be held out, or what share of these, 0 to 1, chosen by content.
        threads: How many pictures are decoded at once.

    Raises:
        ImageError: the folder is not there, or has no picture that can be trained on.
        UsageError: the resolution does not suit the networks, or the share is none.
    """
    folder = read_folder(root, captioned=captioned, columns=columns).needs_some()
    if isinstance(validation, Path):
        apart = read_folder(validation, captioned=captioned, columns=columns).needs_some()
    elif 0.0 <= validation < 1.0:
        folder, apart = folder.part(validation) if validation else (folder, Folder(root, (), ()))
    else:
        raise UsageError(f"the share of pictures held out is {validation}, but must be from 0 to below 1")
    return FolderSource(folder, apart, framing, threads)


class FolderSource:
    """A `Source`: what stands at an index depends on the folder's content and (seed, step, index) alone.

    A picture that turns out to be broken is told of once, and the next one of its bucket takes its place.

    Raises:
        ImageError: no picture can be trained on.
        UsageError: the resolution does not suit the networks.
    """

    def __init__(self, folder: Folder, apart: Folder, framing: Framing, threads: int = 2) -> None:
        table = framing.table
        small = {
            picture.path: f"{picture.width}x{picture.height} pixels are too few to be made twice as large"
            for picture in folder.pictures
            if too_small(bucket_of(table, picture.width, picture.height), picture.width, picture.height)
        }
        self.folder, self.apart, self.framing = folder.without(small).needs_some(), apart, framing
        sizes = {index: (each.width, each.height) for index, each in enumerate(self.folder.pictures)}
        buckets = fill_buckets(sizes, table, framing.batch)
        self.plan = Plan(
            buckets,
            framing.batch,
            framing.seed,
            random_crop=not framing.center_crop,
            random_flip=framing.random_flip,
        )
        self.broken: dict[str, str] = {}  # by path, what was found out while decoding
        self.threads = threads
        self._ahead = Ahead(self._levels_at, threads)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """All that is not trained on, with what has turned out to be broken so far."""
        broken = (Skipped(path, reason) for path, reason in sorted(self.broken.items()))
        return (*self.folder.skipped, *self.apart.skipped, *broken)

    def write_skipped(self, path: Path) -> None:
        """Write what was skipped and why, a line each.

        Raises:
            SdscratchError: it cannot be written.
        """
        write_skipped(self.skipped, path)

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption once, sorted."""
        return tuple(sorted({picture.caption for picture in self.folder.pictures}))

    @property
    def fixed_views(self) -> bool:
        """Whether pictures are never cropped at random, so that what is computed of them can be kept."""
        return self.framing.center_crop or all(
            _fits(self.folder.pictures[index], size)
            for size, members in self.plan.buckets.items()
            for index in members
        )

    def views(self) -> list[View]:
        """Every view that there is, where they are fixed: each picture, and its mirror image if flipped."""
        sides = (False, True) if self.framing.random_flip else (False,)
        return [
            View(index, size, flipped=flipped)
            for size, members in self.plan.buckets.items()
            for index in members
            for flipped in sides
        ]

    def path(self, view: View) -> Path:
        """The file that a view shows."""
        return self.folder.root / self.folder.pictures[view.picture].path

    def caption(self, view: View) -> str:
        """What a view shows."""
        return self.folder.pictures[view.picture].caption

    def levels(self, view: View) -> Levels:
        """The pixels of a view, [H, W, 3].

        Raises:
            ImageError: the picture is broken.
        """
        return framed(self.path(view), view)

    def batch(self, step: int, indices: range, device: torch.device) -> Batch:
        """The pictures at `indices` of step `step`'s batch.

        Raises:
            ImageError: all pictures of a bucket are broken.
        """
        found = self._ahead(step, indices)
        captions = tuple(self.caption(view) for view, _ in found)
        return Batch(to_tensor([levels for _, levels in found], device), captions)

    def held_out(self, count: int, device: torch.device) -> Batch:
        """Up to `count` pictures that no step is given, always the same; none where nothing was held out.

        They are cropped to squares, to stand in one batch.
        """
        side = self.framing.resolution
        pictures = self.apart.pictures
        count = min(count, len(pictures))
        found: list[tuple[Levels, str]] = []
        for picture in (pictures[index * len(pictures) // count] for index in range(count)):
            try:
                path = self.apart.root / picture.path
                found.append((framed(path, View(0, (side, side))), picture.caption))
            except ImageError as error:
                self._tell(picture.path, error)
        if not found:
            return Batch(torch.empty(0, 3, side, side, device=device), ())
        return Batch(to_tensor([levels for levels, _ in found], device), tuple(text for _, text in found))

    def sound(self, view: View, make: Callable[[View], T]) -> tuple[View, T]:
        """`view` and what `make` makes of it; where its picture is broken, its first substitute that is not.

        Raises:
            ImageError: all are.
        """
        reason = None
        for each in chain((view,), self.plan.substitutes(view)):
            try:
                return each, make(each)
            except ImageError as error:
                self.tell(each, error)
                reason = reason or error
        raise ImageError(f"none of the pictures of one size can be read any more ({reason})")

    def _levels_at(self, step: int, index: int) -> tuple[View, Levels]:
        return self.sound(self.plan.view(step, index), self.levels)

    def tell(self, view: View, error: ImageError) -> None:
        """Remember that a view's picture is broken, and say so the first time."""
        self._tell(self.folder.pictures[view.picture].path, error)

    def _tell(self, path: str, error: ImageError) -> None:
        if path not in self.broken:
            self.broken[path] = str(error)
            logging.getLogger(__name__).warning("skipping a picture: %s", error)


class Ahead(Generic[T]):
    """Calls `make(step, index)` in threads, before anyone asks for it."""

    def __init__(self, make: Callable[[int, int], T], threads: int) -> None:
        self.make = make
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.lock = threading.Lock()
        self.begun: dict[tuple[int, int], Future[T]] = {}

    def __call__(self, step: int, indices: range) -> list[T]:
        """What stands at `indices`; the same indices of the next steps are begun."""
        with self.lock:
            for key in [key for key in self.begun if not step <= key[0] <= step + AHEAD]:
                self.begun.pop(key).cancel()  # the trainer is elsewhere by now
            for later in range(step, step + 1 + AHEAD):
                for index in indices:
                    if (later, index) not in self.begun:
                        self.begun[later, index] = self.pool.submit(self.make, later, index)
            asked = [self.begun.pop((step, index)) for index in indices]
        return [future.result() for future in asked]


def to_tensor(pictures: Sequence[Levels], device: torch.device) -> Tensor:
    """Pictures of one size as [n, 3, H, W] float32 in −1 to 1, on `device`."""
    levels = torch.from_numpy(np.stack(pictures)).to(device)
    return (levels.permute(0, 3, 1, 2).float().contiguous() / 255.0) * 2.0 - 1.0


def framed(path: Path, view: View) -> Levels:
    """A picture's pixels as a view shows them, [H, W, 3].

    Raises:
        ImageError: it is missing or broken.
    """
    picture = fit_picture(read_picture(path), *view.size, at=view.at)
    return np.array(ImageOps.mirror(picture) if view.flipped else picture)


def _fits(picture: Picture, size: Size) -> bool:
    """Whether nothing of a picture is left over when it is cropped."""
    return picture.width * size[1] == picture.height * size[0]
