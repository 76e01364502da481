"""What is larger than a model draws at once: a second pass, tiles of memory, pictures that tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.options.fields import LARGE, SIDE_STEP, asked, check_side, check_tile

__all__ = [
    "LATENT_UPSCALERS",
    "PIXEL_UPSCALERS",
    "LargeOptions",
    "check_large",
    "hires_size",
    "parse_upscaler",
    "spelled_upscaler",
]

# What enlarges a latent: how `interpolate` does it, and whether it is smoothed where it shrinks.
LATENT_UPSCALERS: Mapping[str, tuple[str, bool]] = {
    "latent": ("bilinear", False),
    "latent-antialiased": ("bilinear", True),
    "latent-bicubic": ("bicubic", False),
    "latent-bicubic-antialiased": ("bicubic", True),
    "latent-nearest": ("nearest", False),
    "latent-nearest-exact": ("nearest-exact", False),
}
PIXEL_UPSCALERS = ("lanczos", "nearest", "bicubic")
WEBUI_SPELLINGS = {
    "Latent": "latent",
    "Latent (antialiased)": "latent-antialiased",
    "Latent (bicubic)": "latent-bicubic",
    "Latent (bicubic antialiased)": "latent-bicubic-antialiased",
    "Latent (nearest)": "latent-nearest",
    "Latent (nearest-exact)": "latent-nearest-exact",
    "Lanczos": "lanczos",
    "Nearest": "nearest",
    "None": "lanczos",  # which the web UI resizes with all the same
}
SPELLINGS = {spelling.lower(): name for spelling, name in WEBUI_SPELLINGS.items()}


def parse_upscaler(name: str) -> str:
    """An upscaler's name here, in any spelling; one that is no word of ours is a file's, as it stands."""
    plain = name.strip().lower()
    return SPELLINGS.get(plain, plain if plain in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS) else name)


def spelled_upscaler(name: str) -> str:
    """The web UIs' spelling."""
    return next((theirs for theirs, ours in WEBUI_SPELLINGS.items() if ours == name), name)


def _check_window(side: int) -> None:
    if side:
        check_side("window", side)


@dataclass(frozen=True, kw_only=True)
class LargeOptions:
    """The panel of large pictures."""

    hires: float | None = asked(
        None,
        "Scale of a second pass: the picture is drawn, enlarged so many times, and drawn over.",
        LARGE,
        metavar="SCALE",
        low=1,
        high=16,
        off=True,
    )
    hires_upscaler: str = asked(
        "latent",
        f"Upscaler between the passes: {', '.join((*LATENT_UPSCALERS, *PIXEL_UPSCALERS))}, or an "
        "upscaler of the ESRGAN family: a file, or a name in ./upscalers or in upscalers of the user's data "
        "folder.",
        LARGE,
        metavar="NAME|FILE",
        off=True,
    )
    hires_strength: float = asked(
        0.7, "Share of the noise that the enlarged picture gets.", LARGE, low=0, high=1, off=True
    )
    hires_steps: int = asked(
        0, "Number of steps of the second pass; 0: as many as the first.", LARGE, low=0, high=1000, off=True
    )
    hires_sampler: str | None = asked(
        None, "Sampler of the second pass.", LARGE, default="the first's", check=parse_sampler, off=True
    )
    hires_scheduler: str | None = asked(
        None,
        "Spacing of the second pass's noise levels.",
        LARGE,
        default="the first's",
        check=parse_scheduler,
        off=True,
    )
    hires_cfg_scale: float | None = asked(
        None, "Guidance of the second pass.", LARGE, default="the first's", low=0, high=1000, off=True
    )
    hires_prompt: str | None = asked(
        None,
        "Prompt of the second pass; LoRAs are then those that its tags name.",
        LARGE,
        default="the first's",
        off=True,
    )
    hires_negative_prompt: str | None = asked(
        None, "Negative prompt of the second pass.", LARGE, default="the first's", off=True
    )
    seamless: str | None = asked(
        None,
        "Axes along which the picture tiles without a seam: x, y or xy.",
        LARGE,
        choices=("x", "y", "xy"),
        off=True,
    )
    window: int = asked(
        0,
        "Side of windows that a picture larger than them is denoised in, blended at every step "
        "(MultiDiffusion). 0: whole.",
        LARGE,
        metavar="PIXELS",
        check=_check_window,
        off=True,
    )
    tile: int = asked(
        None,
        "Side of the pieces that pictures are encoded and decoded in: memory for one piece, and the same "
        "picture to rounding. 0: whole.",
        LARGE,
        metavar="PIXELS",
        default="by memory: 0 where the whole fits, else 512",
        check=check_tile,
        off=True,
        before=0,
    )


def check_large(asked: Any) -> None:
    """Refuse what does not go together, above all what is asked of a second pass that there is not.

    Args:
        asked: a `GenerateOptions`.

    Raises:
        UsageError: there is no second pass, or windows beside what knows one picture alone.
    """
    if asked.window and asked.deep_cache > 1:
        raise UsageError(
            "--deep-cache remembers one picture's features, so it goes with no --window; leave one out"
        )
    if asked.hires is None:
        for name, field in LargeOptions.__dataclass_fields__.items():
            if name.startswith("hires_") and getattr(asked, name) != field.metadata["asked"]:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} is of a second pass, so it goes with --hires alone; add --hires 2"
                )


def hires_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """The second pass's size, rounded down as the web UI does."""
    return tuple(int(side * scale) // SIDE_STEP * SIDE_STEP for side in (width, height))  # type: ignore[return-value]
