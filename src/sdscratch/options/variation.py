"""How a picture's noise is varied, as the web UIs have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdscratch.checks import parse_size
from sdscratch.errors import UsageError
from sdscratch.options.fields import MAX_SEED, MIN_SIDE, VARIATION, asked

__all__ = ["VariationOptions", "check_resize", "numbered_seeds", "seeds_of"]

MOST_ENSD = 2**31 - 1


def check_resize(text: str) -> tuple[int, int]:
    """The (width, height) of a picture that another size is to resemble.

    Raises:
        UsageError: another form, or no size of a picture.
    """
    width, height = parse_size(text, "the seed-resize")
    if min(width, height) < MIN_SIDE:
        raise UsageError(f"the seed-resize is {text!r}, but no side is less than {MIN_SIDE}, like 512x512")
    return width, height


def numbered_seeds(seed: int, variation_seed: int | None, index: int) -> dict[str, int | None]:
    """The seeds of the picture of this number, from 0, among several: its own, or its variation's counts up.

    Of variations of one picture, as the web UIs have it, only the variation's does.
    """
    if variation_seed is None:
        return {"seed": seed + index, "variation_seed": None}
    return {"seed": seed, "variation_seed": variation_seed + index}


def seeds_of(options: Any, seed: int, count: int) -> list[int]:
    """The seeds of so many pictures: variations are all of one.

    Args:
        options: a `GenerateOptions`.
    """
    return [seed if options.variation_strength else seed + index for index in range(count)]


@dataclass(frozen=True, kw_only=True)
class VariationOptions:
    """The panel Variation."""

    variation_seed: int | None = asked(
        None,
        "Seed of the noise that is mixed into the picture's by --variation-strength; picture i has this + i, "
        "and all have the same --seed.",
        VARIATION,
        low=0,
        high=MAX_SEED,
        default="--seed + 1",
        off=True,
    )
    variation_strength: float = asked(
        None,
        "Share of the variation: 0 is the picture of --seed, 1 that of --variation-seed.",
        VARIATION,
        low=0,
        high=1,
        default="0",
        off=True,
        before=0.0,
    )
    seed_resize: str | None = asked(
        None,
        "Size of a picture of the same --seed that this one is to resemble at its own size.",
        VARIATION,
        metavar="WxH",
        default="off",
        check=check_resize,
        off=True,
    )
    ensd: int = asked(
        0,
        "Number added to the seed of the noise that samplers draw after the start (eta noise seed delta).",
        VARIATION,
        low=0,
        high=MOST_ENSD,
        off=True,
    )
