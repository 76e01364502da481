"""Which of T timesteps n steps visit, falling: diffusers' spacings (Lin et al. 2023, table 2)."""

from __future__ import annotations

import numpy as np

from sdscratch.diffusion.catalogue import Spaced
from sdscratch.diffusion.schedule import Array

__all__ = ["integer_below", "lcm_timesteps", "leading", "linspace", "trailing"]


def leading(total: int, steps: int, habit: Spaced, offset: int = 1) -> Array:
    """Whole strides counted up from timestep 1 (`steps_offset`; from 0 where T steps leave no room)."""
    points = steps + habit.spare
    timesteps: Array = np.arange(points, dtype=np.float64)[::-1][:steps] * max(total // points, 1)
    return timesteps + min(float(offset), total - 1 - float(timesteps[0]))


def trailing(total: int, steps: int, habit: Spaced, offset: int = 1) -> Array:
    """Strides counted down from the last timestep, rounded."""
    # rounding errors give arange one value too many at some numbers of steps (61, 103, …)
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1


def linspace(total: int, steps: int, habit: Spaced, offset: int = 1) -> Array:
    """From the last timestep to the first in equal, fractional strides (with `rounds`, rounded)."""
    timesteps = np.linspace(0, total - 1, steps + habit.spare)[::-1][:steps]
    rounded = np.round(timesteps)
    # with a spare point, T steps are more points than timesteps: two would round to the same
    return rounded if habit.rounds and len(np.unique(rounded)) == steps else timesteps


def lcm_timesteps(total: int, steps: int, habit: Spaced, offset: int = 1) -> Array:
    """So many of the 50 timesteps that latent consistency models are trained at (Luo et al. 2023)."""
    trained = np.arange(1, 51) * (total // 50) - 1
    places = np.floor(np.linspace(0, 50, min(steps, 50), endpoint=False)).astype(int)
    return np.asarray(trained[::-1][places], dtype=np.float64)


def integer_below(timesteps: Array) -> Array:
    """The greatest integer less than each timestep, and at least 0.

    What diffusers' DPM++ 2M tells the network with exponential sigmas: it truncates there where it rounds
    elsewhere, and in its float32 even the first timestep falls just short of 999.
    """
    return np.maximum(np.ceil(timesteps) - 1.0, 0.0)
