"""How noisy a latent is at every step: betas, sigmas, and the paths that samplers take through them.

Samplers work in σ-space, x = x₀ + σ·noise (Karras et al. 2022, section 2). Networks were trained on
variance-preserving latents, √ᾱ·x₀ + √(1−ᾱ)·noise (Ho et al. 2020, eq. 4): the same thing divided by
√(1+σ²), with σ² = (1−ᾱ)/ᾱ. Everything here is float64; this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig

__all__ = ["Path", "Schedule", "make_path", "steps_from_strength"]

Array = npt.NDArray[np.float64]

KARRAS_RHO = 7.0  # Karras et al. 2022, section 3


class Schedule:
    """The forward process: how noisy the training latents were at each timestep.

    Attributes:
        betas: [T] variances of the noise added at each timestep (scaled linear: their roots are evenly
            spaced, as latent diffusion trains; Rombach et al. 2022).
        alphas_bar: [T] ᾱ_t = ∏(1−β), the share of the picture's variance left (Ho et al. 2020, section 2).
        sigmas: [T] σ_t = √((1−ᾱ_t)/ᾱ_t), rising.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        low, high = math.sqrt(config.beta_start), math.sqrt(config.beta_end)
        self.betas: Array = np.linspace(low, high, config.timesteps) ** 2
        self.alphas_bar: Array = np.cumprod(1.0 - self.betas, dtype=np.float64)
        self.sigmas: Array = np.sqrt((1.0 - self.alphas_bar) / self.alphas_bar)
        self._log_sigmas = np.log(self.sigmas)
        self._timesteps = np.arange(config.timesteps, dtype=np.float64)

    def __len__(self) -> int:
        """T, the number of timesteps."""
        return len(self.sigmas)

    def sigma(self, timestep: float | Array) -> Array:
        """σ at a timestep, 0 to T−1; between two of them log σ is interpolated, as k-diffusion does."""
        return np.exp(np.interp(timestep, self._timesteps, self._log_sigmas))

    def sigma_linear(self, timestep: float | Array) -> Array:
        """σ at a timestep, 0 to T−1; between two of them σ itself is interpolated, as diffusers does."""
        return np.asarray(np.interp(timestep, self._timesteps, self.sigmas))

    def timestep(self, sigma: float | Array) -> Array:
        """The inverse of `sigma`, fractional; both references use it. Beyond either end: that end."""
        return np.asarray(np.interp(np.log(sigma), self._log_sigmas, self._timesteps))


@dataclass(frozen=True)
class Path:
    """The noise levels that one run of a sampler visits.

    Attributes:
        sigmas: n+1 values, falling strictly; the last is 0, or σ₀ for DDIM.
        timesteps: n values, what the network is told at each sigma but the last.
        start_scale: the start latent is unit noise times this (in σ-space).
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    start_scale: float

    @property
    def end_scale(self) -> float:
        """What the last latent is multiplied by, 1/√(1+σ²) with the last σ: 1 but for DDIM.

        DDIM ends at ᾱ₀, not at 1 (diffusers' `set_alpha_to_one` False): its last latent is a
        variance-preserving one at σ₀, which the decoder takes as it is.
        """
        return 1.0 / math.sqrt(1.0 + self.sigmas[-1] ** 2)

    def timestep(self, sigma: float) -> float:
        """What the network is told at `sigma`, which is one of `sigmas` but not the last."""
        return self.timesteps[self.sigmas.index(sigma)]

    def tail(self, steps_left: int) -> Path:
        """The last `steps_left` steps, 0 to n: those of image-to-image, from x₀ + sigmas[0]·noise on."""
        skipped = len(self.timesteps) - steps_left
        return Path(self.sigmas[skipped:], self.timesteps[skipped:], self.start_scale)


def steps_from_strength(steps: int, strength: float) -> int:
    """How many of `steps` image-to-image runs at a strength of 0 to 1.

    Rounds down in floating point, so that strength 0.29 of 100 steps is 28, as in diffusers.
    """
    return min(int(steps * strength), steps)


# Where diffusers' own classes, made from Stable Diffusion 1.5's published scheduler configuration, differ.


@dataclass(frozen=True)
class Habit:
    """How a sampler's reference reads a schedule."""

    scheduler: str  # its own spacing
    spare: int = 0  # points spaced out beyond the steps, of which the lowest go unused
    rounds: bool = False  # tells the network whole timesteps only
    unit_start: bool = False  # starts at plain noise in variance-preserving scale
    ends_at_first: bool = False  # ends at the first timestep's σ₀ instead of 0


HABITS = {
    "ddpm": Habit("leading", rounds=True, unit_start=True),
    "ddim": Habit("leading", rounds=True, unit_start=True, ends_at_first=True),
    "euler": Habit("linspace"),
    "euler_a": Habit("linspace"),
    "heun": Habit("linspace"),
    "dpm++2m": Habit("linspace", spare=1, rounds=True, unit_start=True),
}


# Spacings by timestep (Lin et al. 2023, table 2): which of T timesteps n steps visit, falling.


def leading(total: int, steps: int, habit: Habit) -> Array:
    """Whole strides counted up from timestep 1 (`steps_offset`; from 0 where T steps leave no room)."""
    points = steps + habit.spare
    timesteps: Array = np.arange(points, dtype=np.float64)[::-1][:steps] * max(total // points, 1)
    return timesteps + min(1.0, total - 1 - float(timesteps[0]))


def trailing(total: int, steps: int, habit: Habit) -> Array:
    """Strides counted down from the last timestep, rounded."""
    # rounding errors give arange one value too many at some numbers of steps (61, 103, …)
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1


def linspace(total: int, steps: int, habit: Habit) -> Array:
    """From the last timestep to the first in equal, fractional strides (with `rounds`, rounded)."""
    timesteps = np.linspace(0, total - 1, steps + habit.spare)[::-1][:steps]
    rounded = np.round(timesteps)
    # with a spare point, T steps are more points than timesteps: two would round to the same
    return rounded if habit.rounds and len(np.unique(rounded)) == steps else timesteps


# Spacings by noise level: n sigmas from σmax to σmin.


def karras(schedule: Schedule, steps: int) -> Array:
    """Equal strides in σ^(1/7) (Karras et al. 2022, eq. 5)."""
    high, low = schedule.sigmas[-1] ** (1 / KARRAS_RHO), schedule.sigmas[0] ** (1 / KARRAS_RHO)
    return np.asarray(np.linspace(high, low, steps) ** KARRAS_RHO)


def exponential(schedule: Schedule, steps: int) -> Array:
    """Equal strides in log σ."""
    return np.exp(np.linspace(math.log(schedule.sigmas[-1]), math.log(schedule.sigmas[0]), steps))


def integer_below(timesteps: Array) -> Array:
    """The greatest integer less than each timestep, and at least 0.

    What diffusers' DPM++ 2M tells the network with exponential sigmas: it truncates there where it rounds
    elsewhere, and in its float32 even the first timestep falls just short of 999.
    """
    return np.maximum(np.ceil(timesteps) - 1.0, 0.0)


BY_TIMESTEP = {"leading": leading, "trailing": trailing, "linspace": linspace}
BY_SIGMA: dict[str, tuple[Callable[[Schedule, int], Array], Callable[[Array], Array]]] = {
    "karras": (karras, np.round),
    "exponential": (exponential, integer_below),
}


def make_path(schedule: Schedule, sampler: str, scheduler: str | None, steps: int) -> Path:
    """The noise levels that `steps` steps of a sampler visit, as its reference spaces them.

    Args:
        schedule: the model's.
        sampler: one of `options.SAMPLERS`.
        scheduler: one of `options.SCHEDULERS`; None is the sampler's own spacing. All follow diffusers, but
            `normal` follows k-diffusion throughout: log σ interpolated, timesteps never rounded, and every
            sampler starts at noise·σmax and ends at 0. Every step begins where the one before ended;
            diffusers' DDIM strides by T // steps whatever the spacing, and so misses that with `linspace`,
            and with `trailing` where steps do not divide T.
        steps: 1 to T.

    Raises:
        UsageError: more steps than the model has timesteps, or none.
    """
    total = len(schedule)
    if not 1 <= steps <= total:
        raise UsageError(f"the number of steps is {steps}, but this model takes from 1 to {total}")
    habit = HABITS[sampler]
    scheduler = scheduler or habit.scheduler
    if scheduler == "normal":
        timesteps = np.linspace(total - 1, 0, steps)
        sigmas = schedule.sigma(timesteps)
        return _path(sigmas, timesteps, end=0.0, start_scale=float(sigmas[0]))
    if scheduler in BY_TIMESTEP:
        timesteps = BY_TIMESTEP[scheduler](total, steps, habit)
        sigmas = schedule.sigma_linear(timesteps)
    else:
        space, whole = BY_SIGMA[scheduler]
        sigmas = space(schedule, steps)
        timesteps = schedule.timestep(sigmas)
        timesteps = whole(timesteps) if habit.rounds else timesteps
    end = float(schedule.sigmas[0]) if habit.ends_at_first and timesteps[-1] > 0 else 0.0
    # a latent at σmax is x₀ + σmax·noise, of variance 1 + σmax²; Euler's references leave out x₀'s share
    whole_variance = habit.unit_start or scheduler == "leading"
    start_scale = math.sqrt(sigmas[0] ** 2 + 1.0) if whole_variance else float(sigmas[0])
    return _path(sigmas, timesteps, end=end, start_scale=start_scale)


def _path(sigmas: Array, timesteps: Array, *, end: float, start_scale: float) -> Path:
    return Path((*sigmas.tolist(), end), tuple(timesteps.tolist()), start_scale)
