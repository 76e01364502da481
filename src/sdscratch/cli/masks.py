"""What is typed of an init picture and its mask, checked before anything slow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdscratch.cli.arguments import Arguments
from sdscratch.errors import UsageError
from sdscratch.options.masks import MaskOptions, useless_without_mask
from sdscratch.settings import option_name

if TYPE_CHECKING:
    from sdscratch.generation.inits import Given

__all__ = ["WITH_INIT", "given_by"]

log = logging.getLogger(__name__)

# What says something of an init picture.
WITH_INIT = (
    *("strength", "init_img", "init_upscaler", "fit", "background", "mask", "extend", "strict"),
    *MaskOptions.__dataclass_fields__,
)


def given_by(init: str, typed: Mapping[str, Any], arguments: Arguments) -> Given:
    """What image-to-image is given on the command line, read and checked.

    Raises:
        UsageError: options that do not go together.
        ImageError: a picture is missing, unreadable or refused.
    """
    from sdscratch.generation.inits import read_given

    given = read_given(
        init,
        arguments.mask,
        arguments.extend,
        fit=arguments.fit,
        background=arguments.background,
        strict=arguments.strict,
        upscaler=arguments.init_upscaler,
    )
    check_masks(given, typed, arguments)
    return given


def check_masks(given: Given, typed: Mapping[str, Any], arguments: Arguments) -> None:
    """Say at once what is wrong with a mask, or with what is asked of one.

    Raises:
        UsageError: options that do not go together.
        ImageError: the mask is empty, or of another size where that is refused.
    """
    if not given.masked:
        if name := useless_without_mask(typed):
            option = "--no-paste" if name == "paste" else option_name(name)
            raise UsageError(f"{option} says how a mask is used; give --mask FILE or --extend SIDES with it")
        return
    given.check(invert=typed.get("mask_invert", False))
    jpeg = (arguments.output or "").lower().endswith((".jpg", ".jpeg"))
    if jpeg and given.whole.mode == "RGBA":
        raise UsageError("the init picture has transparency, which JPEG cannot hold; choose .png or .webp")
    if jpeg and typed.get("paste", True):
        log.warning("JPEG changes pixels everywhere a little; choose .png or .webp to keep the rest as it is")
