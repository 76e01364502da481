"""What of a picture is repainted, and how closely a picture is followed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sdscratch.options.fields import MASKS, asked

__all__ = ["MASK_ALONE", "MaskOptions", "useless_without_mask"]


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """The panel Masks; all but the last do nothing without a mask."""

    mask_blur: float = asked(
        4.0,
        "Softness of the mask's edge, σ in pixels; it reaches 2.5 times as far. 0: sharp.",
        MASKS,
        off=True,
        metavar="PIXELS",
        low=0,
        high=256,
    )
    mask_invert: bool = asked(
        False, "Repaint what is black in the mask, and keep the rest.", MASKS, off=True, negative=""
    )
    only_masked: int | None = asked(
        None,
        "Draw the mask's part alone, at the model's best size or --size, with so many pixels of its "
        "surroundings (32 unless given), and put it back.",
        MASKS,
        off=True,
        metavar="[PADDING]",
        alone=32,
        low=0,
        high=4096,
    )
    masked_content: str = asked(
        "original",
        "Content that is found under the mask: original, fill (the colours around it), noise or nothing.",
        MASKS,
        off=True,
        metavar="WHAT",
        choices=("original", "fill", "noise", "nothing"),
    )
    soft_mask: bool = asked(
        False,
        "Take the mask's grey levels as a strength each: white as --strength says, black none.",
        MASKS,
        off=True,
        negative="",
    )
    paste: bool = asked(
        True,
        "Put the picture's own pixels back outside the mask; without, the autoencoder changes them a little.",
        MASKS,
        off=True,
    )
    image_cfg_scale: float = asked(
        1.5,
        "Guidance by INIT, how closely a model that follows instructions (InstructPix2Pix) keeps to it.",
        MASKS,
        off=True,
        low=0,
        high=100,
    )


MASK_ALONE = MaskOptions.__dataclass_fields__.keys() - {"image_cfg_scale"}  # what means something with one


def useless_without_mask(names: Collection[str]) -> str | None:
    """The first of these fields that means something with a mask alone; None where all mean something."""
    own = (name for name in MaskOptions.__dataclass_fields__ if name in MASK_ALONE)
    return next((name for name in own if name in names), None)
