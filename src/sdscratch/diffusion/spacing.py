"""Which noise levels n steps visit, as each tool means it, and what the network is told there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sdscratch.diffusion.catalogue import SAMPLERS, SamplerSpec, Spaced
from sdscratch.diffusion.conventions import Convention, convention_of
from sdscratch.diffusion.levels import COMFYUI, WEBUI, beta_in_sigma, exponential, karras
from sdscratch.diffusion.schedule import Array, Schedule
from sdscratch.diffusion.timesteps import integer_below, lcm_timesteps, leading, linspace, trailing
from sdscratch.errors import UsageError

__all__ = ["SigmaSchedule", "make_sigma_schedule", "shortened", "steps_from_strength"]


@dataclass(frozen=True)
class SigmaSchedule:
    """The noise levels that one run of a sampler visits.

    Attributes:
        sigmas: n+1 values, falling; the last is 0, or σ₀ or another level where the reference ends there.
        timesteps: n values, what the network is told at each sigma but the last.
        start_scale: the start latent is unit noise times this (in σ-space).
        init_scale: of image-to-image, whose start is an encoded picture times this, and that noise.
        variance_preserving_end: the last latent is decoded as it is in variance-preserving scale.
        between: what the network is told at any other sigma.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    start_scale: float
    init_scale: float = 1.0
    variance_preserving_end: bool = True
    between: Callable[[float], float] | None = field(default=None, compare=False, repr=False)

    @property
    def end_scale(self) -> float:
        """What the last latent is multiplied by, 1/√(1+σ²) with the last σ: 1 where that is 0.

        DDIM, say, ends at ᾱ₀, not at 1 (diffusers' `set_alpha_to_one` False): its last latent is a
        variance-preserving one at σ₀, which the decoder takes as it is.
        """
        return 1.0 / math.sqrt(1.0 + self.sigmas[-1] ** 2) if self.variance_preserving_end else 1.0

    def timestep(self, sigma: float) -> float:
        """What the network is told at any σ: at `sigmas` but the last what the reference says.

        Raises:
            ValueError: a σ off the grid, of a schedule that knows nothing between.
        """
        for known, timestep in zip(self.sigmas, self.timesteps, strict=False):
            if sigma == known:
                return timestep
        if self.between is None:
            raise ValueError(f"sigma {sigma} is not one of the schedule's")
        return self.between(sigma)

    def tail(self, steps_left: int) -> SigmaSchedule:
        """The last `steps_left` steps, 0 to n: those of image-to-image, from x₀ + sigmas[0]·noise on."""
        skipped = len(self.timesteps) - steps_left
        return replace(self, sigmas=self.sigmas[skipped:], timesteps=self.timesteps[skipped:])


def steps_from_strength(steps: int, strength: float) -> int:
    """How many of `steps` image-to-image runs at a strength of 0 to 1.

    Rounds down in floating point, so that strength 0.29 of 100 steps is 28, as in diffusers.
    """
    return min(int(steps * strength), steps)


def make_sigma_schedule(
    schedule: Schedule,
    sampler: str,
    scheduler: str | None,
    steps: int,
    *,
    like: str = "sdscratch",
    sigmas: Sequence[float] | None = None,
) -> SigmaSchedule:
    """The noise levels that `steps` steps of a sampler visit, as a tool spaces them.

    Args:
        schedule: the model's.
        sampler: a name of `catalogue.SAMPLERS`.
        scheduler: a name of `catalogue.SPACINGS`; None is the sampler's own in that tool.
        steps: 1 to T. Some spacings make one more, or fewer, as their references do.
        like: a name of `conventions.CONVENTIONS`. With "sdscratch" and "diffusers" samplers and spacings
            that diffusers has follow it. All others, and `normal`, follow k-diffusion: log σ interpolated,
            timesteps never rounded, and every sampler starts at noise·σ₀ and ends at 0. Every step begins
            where the one before ended; diffusers' DDIM strides by T // steps whatever the spacing, and so
            misses that with `linspace`, and with `trailing` where steps do not divide T.
        sigmas: levels of one's own in place of a spacing's (`parse_sigmas`).

    Raises:
        UsageError: more steps than the model has timesteps, or none; a spacing that the tool has not.
    """
    total = len(schedule)
    if not 1 <= steps <= total:
        raise UsageError(f"the number of steps is {steps}, but this model takes from 1 to {total}")
    convention, spec = convention_of(like), SAMPLERS[sampler]
    schedule = as_kept(schedule, convention)
    if sigmas is not None:
        return with_levels(schedule, convention, np.array(sigmas))
    if convention.spacings == "diffusers":
        return as_diffusers(schedule, convention, spec.spaced, scheduler or spec.spaced.scheduler, steps)
    if convention.spacings == "webui" and scheduler is None and sampler in BY_TIMESTEP_IN_WEBUI:
        return by_timestep_in_webui(schedule, convention, sampler, steps)
    return as_tool(schedule, convention, spec, scheduler, steps)


def as_kept(schedule: Schedule, convention: Convention) -> Schedule:
    """The schedule in the precision that the tool keeps it in."""
    rounds = {"always": True, "zero_snr": schedule.zero_snr, "never": False}
    return schedule.in_float32 if rounds[convention.sigmas_in_float32] else schedule


def shortened(
    schedule: Schedule,
    sampler: str,
    scheduler: str | None,
    steps: int,
    strength: float,
    *,
    like: str = "sdscratch",
    exactly: bool = False,
) -> SigmaSchedule:
    """What image-to-image at a strength from 0 to 1 goes through, as a tool counts.

    diffusers runs the last strength·steps of the steps; the web UIs one more; ComfyUI always `steps`, the
    last of steps/strength. `start_scale` is the first sigma.

    Args:
        exactly: the web UIs' setting (and high-resolution pass) that runs `steps` whatever the strength.
    """
    counting = convention_of(like).strength
    whole, left = steps, steps_from_strength(steps, strength)
    if counting == "webui":
        share = min(strength, 0.999)
        whole = int(steps / share) if exactly and share > 0.0 else steps
        left = steps if exactly else int(share * steps) + 1
    elif counting == "comfyui":
        whole = int(steps / strength) if 0.0 < strength < 0.9999 else steps
        left = steps if strength > 0.0 else 0
    whole = min(whole, len(schedule))
    if counting == "webui" and scheduler is None and sampler in BY_TIMESTEP_IN_WEBUI:
        return shortened_by_timestep(
            as_kept(schedule, convention_of(like)), convention_of(like), sampler, whole, left - 1
        )
    path = make_sigma_schedule(schedule, sampler, scheduler, whole, like=like)
    path = path.tail(min(left, len(path.timesteps)))
    return replace(path, start_scale=path.sigmas[0])


# As diffusers' classes do


BY_TIMESTEP: dict[str, Callable[[int, int, Spaced, int], Array]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "lcm": lcm_timesteps,
}
# n sigmas from σmax to σmin, and what is done to their timesteps where whole ones are told
BY_SIGMA: dict[str, tuple[Callable[[Schedule, int], Array], Callable[[Array], Array]]] = {
    "karras": (karras, np.round),
    "exponential": (exponential, integer_below),
    "beta": (beta_in_sigma, np.round),
}


def as_diffusers(
    schedule: Schedule, convention: Convention, habit: Spaced, scheduler: str, steps: int
) -> SigmaSchedule:
    """Where diffusers has the spacing, as it does; else as k-diffusion."""
    if scheduler in BY_TIMESTEP:
        timesteps = BY_TIMESTEP[scheduler](len(schedule), steps, habit, convention.steps_offset)
        sigmas = schedule.sigma_linear(timesteps)
        whole: Callable[[Array], Array] = np.round
    elif scheduler in BY_SIGMA:
        space, whole = BY_SIGMA[scheduler]
        sigmas = space(schedule, steps)
        timesteps = schedule.timestep(sigmas)
        timesteps = whole(timesteps) if habit.rounds else timesteps
    else:
        path = with_levels(schedule, convention, COMFYUI[scheduler](schedule, steps))
        exactly = tuple(np.linspace(len(schedule) - 1, 0, steps).tolist())
        return replace(path, timesteps=exactly) if scheduler == "normal" else path
    to_first = habit.ends_at_first and convention.steps_offset > 0 and timesteps[-1] > 0
    # a latent at σmax is x₀ + σmax·noise, of variance 1 + σmax²; Euler's references leave out x₀'s share
    whole_variance = habit.unit_start or scheduler == "leading"

    def between(sigma: float) -> float:
        told = schedule.timestep(sigma)
        return float(whole(told)) if habit.rounds else float(told)

    return SigmaSchedule(
        (*sigmas.tolist(), float(schedule.sigmas[0]) if to_first else 0.0),
        tuple(timesteps.tolist()),
        math.sqrt(sigmas[0] ** 2 + 1.0) if whole_variance else float(sigmas[0]),
        between=between,
    )


# As k-diffusion, the web UIs and ComfyUI do


def as_tool(
    schedule: Schedule, convention: Convention, spec: SamplerSpec, scheduler: str | None, steps: int
) -> SigmaSchedule:
    """By the tool's own formula, without the last but one level where the tool leaves it out."""
    formulas = WEBUI if convention.spacings == "webui" else COMFYUI
    own = "lcm" if spec.name == "lcm" and formulas is WEBUI else "normal"
    name = scheduler or (spec.webui if formulas is WEBUI and spec.webui else own)
    if name not in formulas:
        raise UsageError(
            f"{convention.name} has no scheduler {name}; leave --like out, or choose one of "
            + ", ".join(formulas)
        )
    discards = convention.name in spec.discards
    levels = formulas[name](schedule, steps + discards)
    if discards:
        levels = np.delete(levels, -2)
    return with_levels(schedule, convention, levels)


def has_spacing(like: str, scheduler: str) -> bool:
    """Whether a tool has a formula for a spacing's name."""
    spacings = convention_of(like).spacings
    return spacings == "diffusers" or scheduler in (WEBUI if spacings == "webui" else COMFYUI)


def with_levels(schedule: Schedule, convention: Convention, levels: Array) -> SigmaSchedule:
    """Any levels, with the timesteps and the start that a tool would have."""
    told = schedule.nearest_timestep if convention.timesteps == "nearest" else schedule.timestep
    first, most = float(levels[0]), float(schedule.sigmas[-1])
    full = convention.start == "full" and (first > most or math.isclose(first, most, rel_tol=1e-5))
    return SigmaSchedule(
        tuple(levels.tolist()),
        tuple(told(levels[:-1]).tolist()),
        math.sqrt(1.0 + first**2) if full else first,
        variance_preserving_end=False,
        between=lambda sigma: float(told(sigma)),
    )


BY_TIMESTEP_IN_WEBUI = ("ddim", "plms", "unipc", "unipc_bh2")


def by_timestep_in_webui(
    schedule: Schedule, convention: Convention, sampler: str, steps: int
) -> SigmaSchedule:
    """The web UIs' samplers in variance-preserving scale, which start at plain noise.

    Whole strides of T // n from timestep 1: one level more than steps where n does not divide T. DDIM and
    PLMS take the first of them as their end, and so do a step less; UniPC divides all timesteps by their
    number anew, and ends at the first.
    """
    timesteps = web_strides(schedule, steps)[::-1]
    if sampler.startswith("unipc"):
        timesteps = np.linspace(len(schedule) - 1, 0, len(timesteps) + 1)
    return preserving_variance(schedule, convention, timesteps)


def shortened_by_timestep(
    schedule: Schedule, convention: Convention, sampler: str, steps: int, encoded: int
) -> SigmaSchedule:
    """The web UIs' image-to-image by timestep: noise of one level, and the steps from the level below it.

    Args:
        encoded: how many of the strides are left; the picture gets the noise of the next.
    """
    strides = web_strides(schedule, steps)
    timesteps = strides[:encoded][::-1] if encoded > 1 else strides[1::-1]
    if sampler.startswith("unipc"):
        timesteps = np.linspace(timesteps[0], 0, len(timesteps) + 1)
    path = preserving_variance(schedule, convention, timesteps)
    alpha_bar = float(schedule.alphas_bar[int(strides[min(encoded, len(strides) - 1)])])
    whole = math.sqrt(1.0 + path.sigmas[0] ** 2)
    return replace(
        path, init_scale=math.sqrt(alpha_bar) * whole, start_scale=math.sqrt(1.0 - alpha_bar) * whole
    )


def web_strides(schedule: Schedule, steps: int) -> Array:
    """Whole strides from timestep 1, rising."""
    return np.minimum(np.arange(0.0, len(schedule), len(schedule) // steps) + 1.0, len(schedule) - 1.0)


def preserving_variance(schedule: Schedule, convention: Convention, timesteps: Array) -> SigmaSchedule:
    """The levels of these timesteps, the last of which is the end; starts at plain noise."""
    sigmas = schedule.sigma(timesteps)
    return replace(
        with_levels(schedule, convention, sigmas),
        timesteps=tuple(timesteps[:-1].tolist()),
        start_scale=math.sqrt(1.0 + sigmas[0] ** 2),
        variance_preserving_end=True,
    )
