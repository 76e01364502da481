"""Pictures of many shapes in batches of one size each: buckets by aspect ratio (NovelAI 2022).

For 512 pixels in steps of 64 the table is 384×640, 448×576, 512×512, 576×448, 640×384 (width × height): about
as many pixels each, at most twice as long as wide. A picture goes where it loses least by cropping.
This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sdscratch.errors import UsageError

__all__ = ["Size", "bucket_of", "bucket_step", "bucket_table", "fill_buckets", "too_small"]

Size = tuple[int, int]  # width, height in pixels

LONGEST = 2.0  # aspect ratio
STEPS = 8  # of the table, at least, that the resolution is divided into
LARGEST_ENLARGEMENT = 2.0  # a picture made larger than that teaches blur


def bucket_step(resolution: int, multiple: int) -> int:
    """How finely a table is stepped: `multiple`, doubled while it divides the resolution, to an eighth of it.

    That gives some five buckets; ten times as many would leave most of them without a batch.
    """
    step = multiple
    while resolution % (2 * step) == 0 and 2 * step * STEPS <= resolution:
        step *= 2
    return step


def bucket_table(resolution: int, multiple: int) -> tuple[Size, ...]:
    """The sizes for a resolution, by width: sides are multiples of `multiple`, the area at most resolution².

    Raises:
        UsageError: `resolution` is no multiple itself.
    """
    if resolution < multiple or resolution % multiple:
        raise UsageError(
            f"the resolution is {resolution}, but must be a multiple of {multiple} for this model"
        )

    def other_side(side: int) -> int:
        return resolution**2 // side // multiple * multiple

    widths = range(multiple, 2 * resolution + 1, multiple)
    sizes = ((width, other_side(width)) for width in widths if other_side(width))
    return tuple(
        (width, height)
        for width, height in sizes
        if other_side(height) == width  # neither side can grow
        and max(width, height) <= LONGEST * min(width, height)
    )


def bucket_of(table: Sequence[Size], width: int, height: int) -> Size:
    """The size whose aspect ratio is nearest: the ratio of the two ratios is nearest to 1."""
    aspect = math.log(width / height)
    return min(table, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))


def too_small(bucket: Size, width: int, height: int) -> bool:
    """Whether a picture would have to be made more than twice as large to cover `bucket`."""
    return max(bucket[0] / width, bucket[1] / height) > LARGEST_ENLARGEMENT


def fill_buckets(pictures: Mapping[int, Size], table: Sequence[Size], batch: int) -> dict[Size, list[int]]:
    """Each bucket's pictures (indices, with their own sizes), in the order of `table`; empty ones left out.

    A bucket that would fill less than half a batch joins the one of the nearest aspect ratio, the smallest
    first, so that no picture is seen more than twice in an epoch where the others are seen once.
    """
    buckets: dict[Size, list[int]] = {size: [] for size in table}
    for index, size in pictures.items():
        buckets[bucket_of(table, *size)].append(index)
    buckets = {size: members for size, members in buckets.items() if members}
    while len(buckets) > 1:
        smallest = min(buckets, key=lambda size: len(buckets[size]))
        if 2 * len(buckets[smallest]) >= batch:
            break
        members = buckets.pop(smallest)
        nearest = bucket_of(tuple(buckets), *smallest)
        buckets[nearest] = sorted(buckets[nearest] + members)
    return buckets
