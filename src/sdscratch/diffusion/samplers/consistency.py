"""Consistency models: every step jumps to x₀, and back up on fresh noise; made for two to eight steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step
from sdscratch.diffusion.schedule import Schedule
from sdscratch.models.config import ScheduleConfig

__all__ = ["boundary_scaled", "lcm", "tcd"]

SIGMA_DATA = 0.5  # Luo et al. 2023
TIMESTEP_SCALING = 10.0


def lcm(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, s_noise: float = 1.0
) -> Iterator[Step]:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023, algorithm 3).

    Args:
        s_noise: what the noise is multiplied by.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x = denoised = denoise(x, sigma)
        if next_sigma > 0.0:
            x = x + noise(sigma, next_sigma) * (next_sigma * s_noise)
        yield Step(index, x, denoised, next_sigma)


def tcd(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 0.3,
    schedule: Schedule | None = None,
) -> Iterator[Step]:
    """Strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024, algorithm 4).

    A step goes down to the timestep (1 − γ)·t of the next one's t, and back up on fresh noise.

    Args:
        eta: γ, from 0 (none) to 1 (as `lcm`).
        schedule: tells what σ is at a timestep; by default Stable Diffusion's.
    """
    levels = schedule or Schedule(ScheduleConfig())
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, last = next_sigma, index + 2 == len(sigmas)
        if next_sigma > 0.0 and not last:
            timestep = round(float(levels.timestep(next_sigma)))
            down = min(float(levels.sigma(math.floor((1.0 - eta) * timestep))), next_sigma)
        x = denoised + (x - denoised) * (down / sigma)
        if down < next_sigma and eta > 0.0:
            x = x + noise(sigma, next_sigma) * math.sqrt(next_sigma**2 - down**2)
        yield Step(index, x, denoised, next_sigma)


def boundary_scaled(
    denoise: Denoiser, timestep: Callable[[float], float], *, in_sigma_space: bool = False
) -> Denoiser:
    """A latent consistency model's estimate, which is x itself at t = 0 (Luo et al. 2023, section 4.1).

    Args:
        timestep: what the network is told at σ.
        in_sigma_space: let x in as it is, as the web UI does, not in variance-preserving scale.
    """

    def scaled(x: Tensor, sigma: float) -> Tensor:
        time = timestep(sigma) * TIMESTEP_SCALING
        skip = SIGMA_DATA**2 / (time**2 + SIGMA_DATA**2)
        out = time / math.sqrt(time**2 + SIGMA_DATA**2)
        skip /= 1.0 if in_sigma_space else math.sqrt(1.0 + sigma**2)
        return denoise(x, sigma) * out + x * skip

    return scaled
