"""The size of what is drawn where a picture is given, and the seed where none is."""

from __future__ import annotations

import math
import secrets
from typing import Literal

from sdscratch.errors import UsageError
from sdscratch.options.fields import MIN_SIDE, SIDE_STEP
from sdscratch.options.resolved import GenerateOptions, changed

__all__ = ["Fit", "fit_of_init", "large_init_notice", "random_seed", "size_of_init"]

LARGE_INIT = 1_500_000  # pixels; beyond, that an init picture keeps its size is said

Fit = Literal["cover", "stretch", "contain"]


def random_seed() -> int:
    """A seed from chance, short enough to be typed again."""
    return secrets.randbelow(2**32)


def size_of_init(options: GenerateOptions, size: tuple[int, int]) -> GenerateOptions:
    """The same, with the init picture's (width, height), rounded down to 8, where no size was asked for.

    Raises:
        UsageError: the picture is too small for that.
    """
    width, height = (side - side % SIDE_STEP for side in size)
    if min(options.width or width, options.height or height) < MIN_SIDE:
        raise UsageError(
            f"the init picture is {size[0]}x{size[1]}, too small; ask for a --size of at least "
            f"{MIN_SIDE}x{MIN_SIDE}"
        )
    return changed(options, width=options.width or width, height=options.height or height)


def large_init_notice(size: tuple[int, int], own: tuple[int, int]) -> str | None:
    """A warning that an init picture at its own size is much work; None where it is not.

    Args:
        size: what is drawn.
        own: the model's own size, which the estimate compares with.
    """
    ratio = (size[0] * size[1]) / (own[0] * own[1])
    if size[0] * size[1] <= LARGE_INIT or ratio <= 1:
        return None
    # Convolutions grow with the pixels, self-attention with their square: an eighth of SD 1.5's work at 512².
    work = ratio * (7 + ratio) / 8
    shrink = math.sqrt(4 / ratio)
    near = "x".join(str(max(int(side * shrink) // 64 * 64, MIN_SIDE)) for side in size)
    return (
        f"the init picture is drawn at its own size, {size[0]}x{size[1]} "
        f"({size[0] * size[1] / 1e6:.1f} megapixels): each step is about {work:,.0f} times the work of "
        f"{own[0]}x{own[1]}, which the model was made for; --size {near} would be quicker, and nearer to it"
    )


def fit_of_init(options: GenerateOptions, fit: Fit) -> Fit:
    """How the init picture meets its size: as asked; without one, stretched over the rounding (diffusers)."""
    return "stretch" if options.width is None and options.height is None else fit
