"""What a user can ask for, as frozen values: one definition serves the command line, Python, and metadata.

`ResolvedOptions` lists every option once. `GenerateOptions`, made from it, is what was asked, None where the
model decides; `resolve` fills those from the model's own `Defaults`. Ranges are checked here, so that every
way in refuses the same things in the same words.
This module imports no torch.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from sdscratch.addons.requests import take_loras
from sdscratch.checks import DTYPES, check_placement, check_text, parse_interval
from sdscratch.diffusion import catalogue
from sdscratch.diffusion.conventions import CONVENTIONS, convention_of
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.settings import Setting, check_ranges

__all__ = [
    "APPROXIMATIONS",
    "DTYPES",
    "LOW_MEMORY_TILE",
    "MAX_SEED",
    "MODEL",
    "PICTURE",
    "SAMPLERS",
    "SCHEDULERS",
    "SD1_DEFAULTS",
    "Defaults",
    "Fit",
    "GenerateOptions",
    "ResolvedOptions",
    "changed",
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
LARGE_INIT = 1_500_000  # pixels; beyond, that an init picture keeps its size is said
SIDE_STEP = 8
LEAST_TILE = 128
LOW_MEMORY_TILE = 512  # pixels a side; with --low-memory, larger pictures are decoded in tiles of it

Fit = Literal["cover", "stretch", "contain"]

SAMPLERS = tuple(catalogue.SAMPLERS)
SCHEDULERS = tuple(catalogue.SPACINGS)


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


OWN = "the model's own"
OWN_SIDE = f"{OWN}; img2img: INIT's, rounded down to {SIDE_STEP}"
PICTURE, SAMPLING, MODEL = "Picture", "Sampling", "Model and machine"
APPROXIMATIONS = "Approximations: faster, and not quite the same picture"


def asked(value: Any, help: str, panel: str, **about: Any) -> Any:
    """A field that `ResolvedOptions` must be given, and its default where nothing is asked for.

    Args:
        value: what it is unless asked for; None: the model decides (the seed: chance).
        about: as of `settings.Setting`.
    """
    return field(metadata={"setting": Setting(help, panel, **about), "asked": value})


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions:
    """Everything a picture depends on besides the model, the init picture and the precision.

    The one list of options: the command line, Python, plans, records and docs/options.md are made from it.
    """

    prompt: str = field(metadata={"asked": ""})  # <lora:name:weight> tags included
    negative_prompt: str = asked("", "Text of what the picture should not show.", PICTURE, aliases=("-n",))
    like: str = asked(
        "sdscratch",
        f"Tool to draw like: {', '.join(CONVENTIONS)}. Prompts, noise levels, noise and the count of steps "
        "are read as it reads them.",
        SAMPLING,
        choices=tuple(CONVENTIONS),
    )
    noise: str = asked(
        None,
        "Noise: cpu, or nv, what an NVIDIA GPU would draw, on any device.",
        SAMPLING,
        choices=("cpu", "nv"),
        default="as --like: cpu",
    )
    prompt_syntax: str = asked(
        None,
        "Syntax of prompts: a1111 (weights, BREAK, editing, AND), comfyui, compel, kohya, sdcpp, or plain "
        "(nothing is syntax, cut where the text encoder ends).",
        PICTURE,
        choices=("a1111", "comfyui", "compel", "kohya", "sdcpp", "plain"),
        default="as --like: a1111",
    )
    width: int = asked(
        None,
        f"Width in pixels, a multiple of {SIDE_STEP}, at least {MIN_SIDE}.",
        PICTURE,
        aliases=("-W",),
        default=OWN_SIDE,
    )
    height: int = asked(
        None,
        f"Height in pixels, a multiple of {SIDE_STEP}, at least {MIN_SIDE}.",
        PICTURE,
        aliases=("-H",),
        default=OWN_SIDE,
    )
    strength: float = asked(
        0.75, "Share of the noise that INIT gets: 0 keeps the picture, 1 ignores it.", PICTURE, low=0, high=1
    )
    seed: int = asked(
        None,
        "Seed of the noise, 0 to 2⁶³−1; picture i has seed + i.",
        SAMPLING,
        aliases=("-s",),
        low=0,
        high=MAX_SEED,
        default="random, always printed",
    )
    steps: int = asked(
        None, "Number of denoising steps.", SAMPLING, low=1, high=1000, default=f"{OWN}; SD 1.x: 30"
    )
    cfg_scale: float = asked(
        None,
        "Guidance, how closely to follow the prompt; 1 is none.",
        SAMPLING,
        aliases=("--cfg", "--scale"),
        low=0,
        high=1000,
        default=f"{OWN}; SD 1.x: 7.5",
    )
    sampler: str = asked(
        None,
        f"Sampler: {', '.join(SAMPLERS)}; in any tool's spelling.",
        SAMPLING,
        default=f"{OWN}; SD 1.x: ddpm",
    )
    scheduler: str | None = asked(
        None, f"Spacing of the noise levels: {', '.join(SCHEDULERS)}.", SAMPLING, default="the sampler's own"
    )
    eta: float = asked(0.0, "Share of fresh noise in ddim, 0 to 1.", SAMPLING, low=0, high=1)
    clip_skip: int = asked(
        0,
        "Number of last layers of the text encoder to leave out (the web UIs count one more).",
        SAMPLING,
        low=0,
        high=11,
    )
    cfg_interval: str | None = asked(
        None,
        "Noise levels σ between which there is guidance, like 0.28:5.42 (SD 1.x begins at 14.6).",
        APPROXIMATIONS,
        metavar="FROM:TO",
        default="everywhere",
    )
    deep_cache: int = asked(
        1,
        "Interval of steps at which the deep part of the U-Net runs; 1 is exact.",
        APPROXIMATIONS,
        metavar="N",
        low=1,
        high=100,
    )
    decoder: str = asked(
        "full",
        "Decoder that makes the picture: full, the model's own, or tiny, the tiny autoencoder (--taesd), "
        "many times faster; an encoder in its file then encodes INIT.",
        APPROXIMATIONS,
        choices=("full", "tiny"),
    )
    tile: int = asked(
        0,
        "Side of the overlapping tiles to decode in: memory for one tile only. 0 is exact; 512 gives about "
        "37 dB PSNR against it, 256 about 31.",
        APPROXIMATIONS,
        metavar="PIXELS",
        default=f"0; with --low-memory {LOW_MEMORY_TILE}",
    )


class _Asked:
    """What a user asked for, of the fields of `ResolvedOptions`; None leaves it to the model.

    Raises:
        UsageError: a value out of its range, or a name that nothing is called.
    """

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_text("negative prompt", self.negative_prompt)
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
        check_ranges(self, lambda name: name.replace("_", "-"))
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
        values = {each.name: getattr(self, each.name) for each in fields(ResolvedOptions)}
        own = {"seed": seed, **asdict(defaults)}
        values |= {name: own[name] for name, value in values.items() if value is None and name in own}
        sampler, named_scheduler = parse_sampler(values["sampler"])
        scheduler = self.scheduler or named_scheduler
        if scheduler is None and sampler == parse_sampler(defaults.sampler)[0]:
            scheduler = defaults.scheduler
        if self.cfg_interval is not None and catalogue.SAMPLERS[sampler].unguided:
            raise UsageError(
                f"{sampler} needs guidance at every step, so it goes with no --cfg-interval; leave one out"
            )
        convention = convention_of(self.like)
        values["noise"] = self.noise or convention.noise
        values["prompt_syntax"] = self.prompt_syntax or convention.syntax
        values["clip_skip"] = max(self.clip_skip - convention.clip_skip_none, 0)
        whole = max(values["width"], values["height"]) <= values["tile"]  # one tile is the whole picture
        values |= {"sampler": sampler, "tile": 0 if whole else values["tile"]}
        values["scheduler"] = None if scheduler is None else parse_scheduler(scheduler)
        return ResolvedOptions(**values)

    if TYPE_CHECKING:  # the fields that are made below

        def __init__(self, prompt: str = "", negative_prompt: str = "", **asked: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...


def _asked_fields() -> list[tuple[str, Any, Any]]:
    """The fields of `ResolvedOptions`, each with its default; None fits where that is one."""
    hints = get_type_hints(ResolvedOptions)
    return [
        (
            each.name,
            hints[each.name] | None if each.metadata["asked"] is None else hints[each.name],
            field(default=each.metadata["asked"], metadata=each.metadata),
        )
        for each in fields(ResolvedOptions)
    ]


if TYPE_CHECKING:
    GenerateOptions = _Asked
else:
    GenerateOptions = make_dataclass(
        "GenerateOptions",
        _asked_fields(),
        bases=(_Asked,),
        frozen=True,
        namespace={"__doc__": _Asked.__doc__},
    )
    GenerateOptions.__module__ = __name__


def changed(options: GenerateOptions, **changes: Any) -> GenerateOptions:
    """The same with other values, which are checked again."""
    values = {each.name: getattr(options, each.name) for each in fields(ResolvedOptions)}
    return GenerateOptions(**(values | changes))


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
