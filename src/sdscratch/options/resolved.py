"""What was asked for, checked; and what a picture is drawn with, every field filled."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from sdscratch.addons.requests import take_loras
from sdscratch.checks import check_text
from sdscratch.diffusion import catalogue
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.options.approximations import ApproximationOptions
from sdscratch.options.guidance import GuidanceOptions
from sdscratch.options.large import LargeOptions, check_large, parse_upscaler
from sdscratch.options.picture import STRENGTH, PictureOptions
from sdscratch.options.sampling import SamplingOptions
from sdscratch.options.together import check_emphasis, check_guidance, own_levels, variation
from sdscratch.options.variation import VariationOptions
from sdscratch.settings import check_ranges

__all__ = ["SD1_DEFAULTS", "Defaults", "GenerateOptions", "ResolvedOptions", "changed"]


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


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(
    ApproximationOptions, LargeOptions, GuidanceOptions, VariationOptions, SamplingOptions, PictureOptions
):  # a dataclass's last base comes first
    """Everything a picture depends on besides the model, the init picture and the precision.

    The one list of options, a panel a file: the command line, Python, plans, records and docs are made
    from it.
    """


class _Asked:
    """What a user asked for, of the fields of `ResolvedOptions`; None leaves it to the model.

    Raises:
        UsageError: a value out of its range, or a name that nothing is called.
    """

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        take_loras(self.prompt)  # refuses tags that make no sense
        if take_loras(self.negative_prompt)[1]:
            raise UsageError(
                "the negative prompt holds a <lora:…> tag; a LoRA changes the model, so put it in the prompt"
            )
        check_ranges(self, lambda name: name.replace("_", "-"))
        check_large(self)

    def resolve(self, defaults: Defaults, seed: int) -> ResolvedOptions:
        """The same with the model's defaults where nothing was asked, and `seed` where none was.

        A sampler chosen by name brings its own spacing, not the one that the model's default sampler likes.
        """
        values = {each.name: getattr(self, each.name) for each in fields(ResolvedOptions)}
        own = {"seed": seed, "strength": STRENGTH, **asdict(defaults)}
        values |= {name: own[name] for name, value in values.items() if value is None and name in own}
        sampler, named_scheduler = parse_sampler(values["sampler"])
        scheduler = scheduler_asked = self.scheduler or named_scheduler
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
        values |= {"sampler": sampler, "tile": values["tile"] or 0}
        values["hires_upscaler"] = parse_upscaler(values["hires_upscaler"])
        values["scheduler"] = None if scheduler is None else parse_scheduler(scheduler)
        check_emphasis(self.emphasis, values["prompt_syntax"])
        check_guidance(self.apg, self.dynamic_threshold, self.window)
        values |= variation(self.variation_seed, self.variation_strength, values["seed"])
        if self.sigmas is not None:
            values |= own_levels(self.sigmas, self.steps, scheduler_asked, self.strength)
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
