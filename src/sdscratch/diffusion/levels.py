"""The formulas of spacings: how many steps → which noise levels, the final one included.

Each is a function of a `Schedule` and the number of steps. What the tools call alike and mean differently is
two functions, which spacing.py gives to the tools.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sdscratch.diffusion.incomplete_beta import beta_quantile
from sdscratch.diffusion.schedule import Array, Schedule
from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig

__all__ = ["COMFYUI", "WEBUI", "exponential", "karras"]

Levels = Callable[[Schedule, int], Array]

KARRAS_RHO = 7.0  # Karras et al. 2022, section 3
BETA_SHAPE = 0.6  # of both ends (Lee et al. 2024)


# Without a final level: n sigmas


def karras(schedule: Schedule, steps: int) -> Array:
    """Equal strides in σ^(1/7) (Karras et al. 2022, eq. 5)."""
    high, low = schedule.sigmas[-1] ** (1 / KARRAS_RHO), schedule.sigmas[0] ** (1 / KARRAS_RHO)
    return np.asarray(np.linspace(high, low, steps) ** KARRAS_RHO)


def exponential(schedule: Schedule, steps: int) -> Array:
    """Equal strides in log σ."""
    return np.exp(np.linspace(math.log(schedule.sigmas[-1]), math.log(schedule.sigmas[0]), steps))


def normal(schedule: Schedule, steps: int) -> Array:
    """Equal strides in t from the last timestep to the first."""
    return schedule.sigma(np.linspace(len(schedule) - 1, 0, steps))


def sgm_uniform(schedule: Schedule, steps: int) -> Array:
    """Equal strides in t, of which the last would reach the first timestep."""
    return schedule.sigma(np.linspace(len(schedule) - 1, 0, steps + 1)[:-1])


def simple(schedule: Schedule, steps: int) -> Array:
    """Every T/n-th level of the table, rounded down, counted from its end."""
    places = (np.arange(steps) * (len(schedule) / steps)).astype(int)
    return np.asarray(schedule.sigmas[len(schedule) - 1 - places])


def ddim_uniform(schedule: Schedule, steps: int) -> Array:
    """Whole strides of T // n counted up from timestep 1: more than n, where that leaves room."""
    return schedule.sigmas[1 :: max(len(schedule) // steps, 1)][::-1]


def beta_in_sigma(schedule: Schedule, steps: int) -> Array:
    """Quantiles of the beta distribution, spread over σ: the web UIs' and diffusers' (Lee et al. 2024)."""
    low, high = schedule.sigmas[0], schedule.sigmas[-1]
    return np.asarray(low + beta_quantile(1.0 - np.linspace(0, 1, steps), BETA_SHAPE) * (high - low))


def beta_in_timesteps(schedule: Schedule, steps: int) -> Array:
    """The same, spread over whole timesteps, each visited once (ComfyUI)."""
    shares = beta_quantile(1.0 - np.linspace(0, 1, steps, endpoint=False), BETA_SHAPE)
    timesteps = np.rint(shares * (len(schedule) - 1)).astype(int)
    return np.asarray(schedule.sigmas[np.unique(timesteps)[::-1]])


def turbo(schedule: Schedule, steps: int) -> Array:
    """Equal strides down from the last timestep, rounded (Forge)."""
    timesteps = np.round(np.arange(1, steps + 1) * (len(schedule) / steps) - 1)[::-1]
    return schedule.sigma(np.clip(timesteps, 0, len(schedule) - 1))


def lcm(schedule: Schedule, steps: int) -> Array:
    """Equal strides over 50 timesteps, the last of every fiftieth part of T (A1111's LCM)."""
    part = len(schedule) // 50
    trained = np.log(schedule.sigmas[part - 1 :: part])
    return np.exp(np.interp(np.linspace(len(trained) - 1, 0, steps), np.arange(len(trained)), trained))


VP_BETAS, VP_END = (0.1, 19.9), 1e-3


def variance_preserving(schedule: Schedule, steps: int) -> Array:
    """The continuous process of Song et al. 2021 (appendix C, eq. 33), whatever the model's: from σ = 152."""
    least, more = VP_BETAS
    times = np.linspace(1.0, VP_END, steps)
    return np.sqrt(np.expm1(more * times**2 / 2.0 + least * times))


LAPLACE_SCALE, LAPLACE_GAP = 0.5, 1e-5


def laplace(schedule: Schedule, steps: int) -> Array:
    """Quantiles of log σ after Laplace's distribution around 0 (Hang et al. 2024), in the model's bounds."""
    places = 0.5 - np.linspace(0.0, 1.0, steps)
    logs = -LAPLACE_SCALE * np.sign(places) * np.log(1.0 - 2.0 * np.abs(places) + LAPLACE_GAP)
    return np.clip(np.exp(logs), schedule.sigmas[0], schedule.sigmas[-1])


# With one


def kl_optimal_to_least(schedule: Schedule, steps: int) -> Array:
    """Equal strides in arctan σ (Sabour et al. 2024, section 3.1), n of them: ends at σmin (web UIs)."""
    angles = np.linspace(math.atan(schedule.sigmas[-1]), math.atan(schedule.sigmas[0]), steps + 1)
    # in float32, as the tools: near a right angle (zero terminal SNR) its rounding is 1e-4 of the tangent
    return np.tan(angles.astype(np.float32).astype(np.float64))


def kl_optimal_to_zero(schedule: Schedule, steps: int) -> Array:
    """The same, n−1 of them and one to 0 (ComfyUI).

    Raises:
        UsageError: a single step, which ComfyUI makes 0/0 of.
    """
    if steps < 2:
        raise UsageError("kl_optimal takes 2 steps or more; choose another scheduler for a single one")
    return ended(kl_optimal_to_least(schedule, steps - 1))


# Sabour et al. 2024 (Align Your Steps), for Stable Diffusion 1.5: as printed, and with all digits
ALIGN_YOUR_STEPS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_EXACTLY = (
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
)


# Two other tables of Forge's for Stable Diffusion 1.x: a longer one, and one found as `GITS` is.
ALIGN_YOUR_STEPS_32 = (
    *(14.615, 11.2395, 8.64363, 6.64729, 5.57251, 4.71649, 3.99196, 3.51956),
    *(3.1349, 2.79229, 2.48774, 2.21664, 1.97508, 1.77932, 1.61475, 1.46541),
    *(1.31485, 1.16642, 1.03476, 0.915737, 0.807482, 0.712024, 0.621739, 0.530652),
    *(0.45291, 0.374915, 0.274618, 0.201153, 0.141059, 0.0668288, 0.0316612, 0.015),
)
ALIGN_YOUR_STEPS_GITS = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)


def along(table: tuple[float, ...]) -> Levels:
    """A table at n points."""
    return lambda schedule, steps: log_interpolated(np.array(table), steps)


def log_interpolated(levels: Array, count: int) -> Array:
    """So many levels along the same curve, in log σ; a single one is the lowest."""
    last = len(levels) - 1
    places = last - np.linspace(0, last, count)[::-1]
    return np.exp(np.interp(places, np.arange(len(levels)), np.log(levels)))


def align_your_steps_and_zero(schedule: Schedule, steps: int) -> Array:
    """The table at n points, then 0 (web UIs); a single step is at its lowest, as theirs."""
    return ended(log_interpolated(np.array(ALIGN_YOUR_STEPS), steps))


def align_your_steps_to_zero(schedule: Schedule, steps: int) -> Array:
    """The table at n+1 points, the last in place of which is 0 (ComfyUI, and its authors)."""
    return ended(log_interpolated(np.array(ALIGN_YOUR_STEPS_EXACTLY), steps + 1)[:-1])


# Chen et al. 2024 (GITS) at coefficient 1.2, 2 to 20 steps: per cent of the timesteps, without both ends.
GITS = (
    "29",
    "49 18",
    "61 33 11",
    "66 42 21 6",
    "83 57 34 15 3",
    "83 62 42 23 8 1",
    "83 62 45 29 15 6 1",
    "83 66 50 34 21 11 4 1",
    "83 66 51 38 27 17 9 4 1",
    "83 67 54 42 30 21 13 7 3 1",
    "83 68 56 45 34 25 17 11 6 3 1",
    "86 71 61 49 38 29 21 15 10 6 3 1",
    "86 71 62 50 40 31 23 17 12 8 5 3 1",
    "88 78 68 58 48 38 30 23 17 12 8 5 3 1",
    "88 78 68 58 48 38 30 23 17 13 9 6 4 2 1",
    "88 78 68 58 48 38 30 23 17 13 10 7 5 3 2 1",
    "88 78 68 59 50 41 33 26 20 15 11 8 6 4 3 2 1",
    "88 78 68 59 50 42 34 27 21 16 12 9 7 5 4 3 2 1",
    "88 78 68 59 50 42 34 27 21 17 13 10 8 6 5 4 3 2 1",
)


def gits(schedule: Schedule, steps: int) -> Array:
    """Noise levels found by the geometry of trajectories (Chen et al. 2024), whose last is 0 (ComfyUI).

    Above 20 steps, and for a single one, the longest table is interpolated or cut as ComfyUI's node does.
    """
    row = GITS[steps - 2] if 2 <= steps <= 20 else GITS[-1]
    percent = np.array([100, *map(int, row.split()), 0])
    trained = Schedule(
        ScheduleConfig()
    )  # what the table was made for, between whose timesteps log ᾱ is linear
    at = percent / 100 * (len(trained) - 1)
    log_alphas = np.interp(at, np.arange(len(trained)), np.log(trained.alphas_bar))
    levels = np.sqrt(np.expm1(-log_alphas))
    if steps > 20:
        levels = log_interpolated(levels, steps + 1)
    return ended(levels[-(steps + 1) : -1])


QUADRATIC_SHARE = 0.025  # of the noise that the linear half takes away


def linear_quadratic(schedule: Schedule, steps: int) -> Array:
    """Half of the steps linear in σ, over a fortieth of it; the rest quadratic (ComfyUI; Movie Gen 2024)."""
    if steps == 1:
        return np.array([schedule.sigmas[-1], 0.0])
    linear = steps // 2
    rest = steps - linear
    gap = linear - QUADRATIC_SHARE * steps
    quadratic = gap / (linear * rest**2)
    slope = QUADRATIC_SHARE / linear - 2.0 * gap / rest**2
    places = np.arange(linear, steps)
    curve = quadratic * places**2 + slope * places + quadratic * linear**2
    gone = np.concatenate([np.arange(linear) * QUADRATIC_SHARE / linear, curve, [1.0]])
    return np.asarray((1.0 - gone) * schedule.sigmas[-1])


def ended(levels: Array) -> Array:
    """Levels, and a final 0."""
    return np.append(levels, 0.0)


def to_zero(levels: Levels) -> Levels:
    """The same levels with a final 0."""
    return lambda schedule, steps: ended(levels(schedule, steps))


ALIKE: dict[str, Levels] = {
    "normal": to_zero(normal),
    "karras": to_zero(karras),
    "exponential": to_zero(exponential),
    "polyexponential": to_zero(exponential),  # with ρ = 1, which all tools have
    "sgm_uniform": to_zero(sgm_uniform),
    "simple": to_zero(simple),
    "ddim_uniform": to_zero(ddim_uniform),
    "gits": gits,
    "turbo": to_zero(turbo),
    "linear_quadratic": linear_quadratic,
    "lcm": to_zero(lcm),
    "vp": to_zero(variance_preserving),
    "laplace": laplace,
    "align_your_steps_32": to_zero(along(ALIGN_YOUR_STEPS_32)),
    "align_your_steps_gits": to_zero(along(ALIGN_YOUR_STEPS_GITS)),
}
WEBUI: dict[str, Levels] = {
    **ALIKE,
    "beta": to_zero(beta_in_sigma),
    "kl_optimal": kl_optimal_to_least,
    "align_your_steps": align_your_steps_and_zero,
}
COMFYUI: dict[str, Levels] = {
    **ALIKE,
    "beta": to_zero(beta_in_timesteps),
    "kl_optimal": kl_optimal_to_zero,
    "align_your_steps": align_your_steps_to_zero,
}
