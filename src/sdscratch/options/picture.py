"""What a picture shows, and its size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from sdscratch.checks import check_text
from sdscratch.options.fields import MIN_SIDE, OWN_SIDE, PICTURE, SIDE_STEP, asked, check_side

__all__ = ["STRENGTH", "PictureOptions"]

STRENGTH = 0.75  # of image-to-image, unless asked for
EMPHASES = (
    *("original", "no-norm", "ignore", "none", "comfyui", "sdcpp"),
    *("kohya", "kohya-abs", "kohya-none", "compel", "compel-remove"),
)


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """The panel Picture."""

    prompt: str = field(metadata={"asked": ""})  # <lora:name:weight> tags included
    negative_prompt: str = asked(
        "",
        "Text of what the picture should not show.",
        PICTURE,
        aliases=("-n",),
        check=partial(check_text, "negative prompt"),
    )
    prompt_syntax: str = asked(
        None,
        "Syntax of prompts: a1111 (weights, BREAK, editing, AND), comfyui, compel, kohya, sdcpp, or plain "
        "(nothing is syntax, cut where the text encoder ends).",
        PICTURE,
        choices=("a1111", "comfyui", "compel", "kohya", "sdcpp", "plain"),
        default="as --like: a1111",
        before="plain",
    )
    emphasis: str | None = asked(
        None,
        f"Emphasis, what weights do to the encoded prompt: {', '.join(EMPHASES)}; none reads brackets as "
        "text.",
        PICTURE,
        choices=EMPHASES,
        default="as the syntax's tool has it",
        off=True,
    )
    width: int = asked(
        None,
        f"Width in pixels, a multiple of {SIDE_STEP}, at least {MIN_SIDE}.",
        PICTURE,
        aliases=("-W",),
        default=OWN_SIDE,
        check=partial(check_side, "width"),
    )
    height: int = asked(
        None,
        f"Height in pixels, a multiple of {SIDE_STEP}, at least {MIN_SIDE}.",
        PICTURE,
        aliases=("-H",),
        default=OWN_SIDE,
        check=partial(check_side, "height"),
    )
    strength: float = asked(
        None,
        "Share of the noise that INIT gets: 0 keeps the picture, 1 ignores it.",
        PICTURE,
        low=0,
        high=1,
        default=f"{STRENGTH}",
    )
