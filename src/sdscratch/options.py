"""What a user can ask for, as frozen values: one definition serves the command line, Python, and metadata.

`GenerateOptions` is what was asked, None where the model decides; `resolve` fills those from the model's
own `Defaults`. Ranges are checked here, so that every way in refuses the same things in the same words.
This module imports no torch.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import Literal

from sdscratch.addons.requests import take_loras
from sdscratch.errors import UsageError

__all__ = [
    "DTYPES",
    "LOW_MEMORY_TILE",
    "MAX_SEED",
    "SAMPLERS",
    "SCHEDULERS",
    "SD1_DEFAULTS",
    "Defaults",
    "Fit",
    "GenerateOptions",
    "ResolvedOptions",
    "check_placement",
    "fit_of_init",
    "parse_interval",
    "parse_sampler",
    "parse_scheduler",
    "random_seed",
    "size_of_init",
]

MAX_SEED = 2**63 - 1
MIN_SIDE = 64
SIDE_STEP = 8
LEAST_TILE = 128
LOW_MEMORY_TILE = 512  # pixels a side; with --low-memory, larger pictures are decoded in tiles of it

Fit = Literal["cover", "stretch", "contain"]

SAMPLERS = ("ddpm", "ddim", "euler", "euler_a", "heun", "dpm++2m")
SCHEDULERS = ("leading", "trailing", "linspace", "normal", "karras", "exponential")
DTYPES = ("float32", "bfloat16", "float16")

# Other tools' spellings, compared without case, spaces and punctuation (but +: it tells 2M from ++2M).
SAMPLER_SPELLINGS = {
    "ddpmscheduler": "ddpm",
    "ddimscheduler": "ddim",
    "eulerdiscretescheduler": "euler",
    "keuler": "euler",
    "eulera": "euler_a",
    "keulera": "euler_a",
    "eulerancestral": "euler_a",
    "keulerancestral": "euler_a",
    "eulerancestraldiscretescheduler": "euler_a",
    "kheun": "heun",
    "heundiscretescheduler": "heun",
    "dpm++2m": "dpm++2m",
    "dpmpp2m": "dpm++2m",
    "kdpm++2m": "dpm++2m",
    "kdpmpp2m": "dpm++2m",
    "dpmsolvermultistepscheduler": "dpm++2m",
    "dpmsolver++": "dpm++2m",
}
SCHEDULER_SPELLINGS = {"discrete": "normal", "polyexponential": "exponential"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def parse_scheduler(name: str) -> str:
    """The spacing meant by `name`, in any of the usual spellings.

    Raises:
        UsageError: no such spacing.
    """
    plain = SCHEDULER_SPELLINGS.get(_plain(name), _plain(name))
    if plain not in SCHEDULERS:
        raise UsageError(f"no scheduler is called {name!r}; choose one of {', '.join(SCHEDULERS)}")
    return plain


def parse_sampler(name: str) -> tuple[str, str | None]:
    """The sampler meant by `name`, and the spacing where the name says one ("DPM++ 2M Karras").

    Raises:
        UsageError: no such sampler.
    """
    spellings = {_plain(own): own for own in SAMPLERS} | SAMPLER_SPELLINGS
    plain = _plain(name)
    if plain in spellings:
        return spellings[plain], None
    for scheduler in SCHEDULERS:
        stem = plain.removesuffix(scheduler)
        if stem != plain and stem in spellings:
            return spellings[stem], scheduler
    raise UsageError(f"no sampler is called {name!r}; choose one of {', '.join(SAMPLERS)}")


def parse_interval(text: str) -> tuple[float, float]:
    """The two noise levels in "0.28:5.42", the lower first; either may be left out.

    Raises:
        UsageError: another form, or nothing between the two.
    """
    low, colon, high = text.partition(":")
    try:
        interval = float(low or 0.0), float(high or "inf")
    except ValueError:
        interval = (0.0, 0.0)
    if not colon or not 0.0 <= interval[0] < interval[1]:
        raise UsageError(
            f"the cfg-interval is {text!r}, but must be FROM:TO, two noise levels of which the first is "
            "lower, like 0.28:5.42"
        )
    return interval


def check_placement(device: str, dtype: str) -> None:
    """Check the names of a device and a precision; whether the device is there, only torch knows.

    Raises:
        UsageError: a name that means nothing.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", device):
        raise UsageError(f"no device is called {device!r}; say auto, cpu, cuda, cuda:1 (a number) or mps")
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"no precision is called {dtype!r}; say auto, {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Defaults:
    """What a model would like to be asked for; travels in its file's metadata."""

    width: int = 512
    height: int = 512
    steps: int = 30
    cfg_scale: float = 7.5
    sampler: str = "ddpm"
    scheduler: str | None = None  # None: the sampler's own (schedule.py)


SD1_DEFAULTS = Defaults()


@dataclass(frozen=True)
class _Asked:
    """What is asked for whatever the model."""

    prompt: str  # <lora:name:weight> tags included
    negative_prompt: str = ""
    eta: float = 0.0  # ddim's share of fresh noise: 0 none, 1 as much as ddpm
    clip_skip: int = 0  # how many of the text encoder's last layers to leave out
    strength: float = 0.75  # img2img: 0 keeps the picture, 1 ignores it
    cfg_interval: str | None = None  # approximation: guidance at these noise levels alone, "FROM:TO"
    deep_cache: int = 1  # approximation: the whole U-Net at every N-th step alone; 1 is exact
    tile: int = 0  # approximation: decoded in overlapping tiles of that many pixels a side; 0 is exact


@dataclass(frozen=True)
class ResolvedOptions(_Asked):
    """Everything a picture depends on besides the model, the init picture and the precision."""

    width: int = 0
    height: int = 0
    steps: int = 0
    cfg_scale: float = 0.0
    seed: int = 0
    sampler: str = ""
    scheduler: str | None = None


@dataclass(frozen=True)
class GenerateOptions(_Asked):
    """What a user asked for; None leaves it to the model (the seed: to chance).

    Raises:
        UsageError: a value out of its range, or a name that nothing is called.
    """

    width: int | None = None  # pixels
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    sampler: str | None = None  # any usual spelling
    scheduler: str | None = None

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative prompt", self.negative_prompt)
        take_loras(self.prompt)  # refuses tags that make no sense
        if take_loras(self.negative_prompt)[1]:
            raise UsageError(
                "the negative prompt holds a <lora:…> tag; a LoRA changes the model, so put it in the prompt"
            )
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and (side < MIN_SIDE or side % SIDE_STEP):
                raise UsageError(
                    f"the {name} is {side}, but must be a multiple of {SIDE_STEP} and at least {MIN_SIDE}"
                )
        _check_range("steps", self.steps, 1, 1000)
        _check_range("cfg-scale", self.cfg_scale, 0, 1000)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("strength", self.strength, 0, 1)
        _check_range("eta", self.eta, 0, 1)
        _check_range("clip-skip", self.clip_skip, 0, 11)
        _check_range("deep-cache", self.deep_cache, 1, 100)
        if self.tile and (self.tile < LEAST_TILE or self.tile % SIDE_STEP):
            raise UsageError(
                f"tile is {self.tile}, but must be 0, or a multiple of {SIDE_STEP} and at least {LEAST_TILE}"
            )
        if self.cfg_interval is not None:
            parse_interval(self.cfg_interval)
        if self.sampler is not None:
            parse_sampler(self.sampler)
        if self.scheduler is not None:
            parse_scheduler(self.scheduler)

    def resolve(self, defaults: Defaults, seed: int) -> ResolvedOptions:
        """The same with the model's defaults where nothing was asked, and `seed` where none was.

        A sampler chosen by name brings its own spacing, not the one that the model's default sampler likes.
        """
        sampler, named_scheduler = parse_sampler(self.sampler or defaults.sampler)
        scheduler = self.scheduler or named_scheduler
        if scheduler is None and sampler == parse_sampler(defaults.sampler)[0]:
            scheduler = defaults.scheduler
        width = defaults.width if self.width is None else self.width
        height = defaults.height if self.height is None else self.height
        return ResolvedOptions(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            eta=self.eta,
            clip_skip=self.clip_skip,
            strength=self.strength,
            cfg_interval=self.cfg_interval,
            deep_cache=self.deep_cache,
            tile=self.tile if max(width, height) > self.tile else 0,  # one tile is the whole picture
            width=width,
            height=height,
            steps=defaults.steps if self.steps is None else self.steps,
            cfg_scale=defaults.cfg_scale if self.cfg_scale is None else self.cfg_scale,
            seed=seed if self.seed is None else self.seed,
            sampler=sampler,
            scheduler=None if scheduler is None else parse_scheduler(scheduler),
        )


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
    return replace(options, width=options.width or width, height=options.height or height)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes that are no UTF-8 arrive as surrogates
        raise UsageError(
            f"character {error.start + 1} of the {name} is not valid text; give it in UTF-8"
        ) from None


def fit_of_init(options: GenerateOptions, fit: Fit) -> Fit:
    """How the init picture meets its size: as asked; without one, stretched over the rounding (diffusers)."""
    return "stretch" if options.width is None and options.height is None else fit


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    # `not (low <= value <= high)`, so that NaN is refused too
    if value is not None and not (low <= value <= high):
        raise UsageError(f"{name} is {value}, but must be from {low} to {high}")
