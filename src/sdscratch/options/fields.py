"""What an option's line holds, and the words and bounds that several of them share."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

from sdscratch.diffusion import catalogue
from sdscratch.errors import UsageError
from sdscratch.settings import Setting

__all__ = [
    "APPROXIMATIONS",
    "GUIDANCE",
    "LARGE",
    "LOW_MEMORY_TILE",
    "MAX_SEED",
    "MIN_SIDE",
    "MODEL",
    "OWN",
    "OWN_SIDE",
    "PICTURE",
    "SAMPLERS",
    "SAMPLING",
    "SCHEDULERS",
    "SIDE_STEP",
    "VARIATION",
    "asked",
    "check_side",
    "check_tile",
]

MAX_SEED = 2**63 - 1
MIN_SIDE = 64
SIDE_STEP = 8
LEAST_TILE = 128
LOW_MEMORY_TILE = 512  # pixels a side; of the pieces that larger pictures are encoded and decoded in

SAMPLERS = tuple(catalogue.SAMPLERS)
SCHEDULERS = tuple(catalogue.SPACINGS)

OWN = "the model's own"
OWN_SIDE = f"{OWN}; img2img: INIT's, rounded down to {SIDE_STEP}"
PICTURE, SAMPLING, MODEL = "Picture", "Sampling", "Model and machine"
GUIDANCE, VARIATION = "Guidance", "Variation"
LARGE = "Large pictures"
APPROXIMATIONS = "Approximations: faster, and not quite the same picture"


def asked(
    value: Any, help: str, panel: str, *, off: bool = False, before: Any = MISSING, **about: Any
) -> Any:
    """A field that `ResolvedOptions` must be given, and its default where nothing is asked for.

    Args:
        value: what it is unless asked for; None: the model decides (the seed: chance).
        off: with `value`, or `before`, nothing is done; records then leave the field out, and those that
            lack it mean so.
        before: what records mean that lack the field, where that is something else.
        about: as of `settings.Setting`.
    """
    absent = value if off and before is MISSING else before
    about_records = {"off": off} | ({} if absent is MISSING else {"absent": absent})
    return field(metadata={"setting": Setting(help, panel, **about), "asked": value, **about_records})


def check_side(name: str, side: int) -> None:
    """Refuse a width or height that no latent has; 0 is none.

    Raises:
        UsageError: no multiple of 8, or less than 64.
    """
    if side < MIN_SIDE or side % SIDE_STEP:
        raise UsageError(
            f"the {name} is {side}, but must be a multiple of {SIDE_STEP} and at least {MIN_SIDE}"
        )


def check_tile(tile: int) -> None:
    """Refuse a tile that no latent has, or that is mostly border.

    Raises:
        UsageError: not 0, and no multiple of 8 or less than 128.
    """
    if tile and (tile < LEAST_TILE or tile % SIDE_STEP):
        raise UsageError(
            f"tile is {tile}, but must be 0, or a multiple of {SIDE_STEP} and at least {LEAST_TILE}"
        )
