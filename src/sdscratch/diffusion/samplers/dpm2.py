"""DPM-Solver-2: the slope in the middle of a step, counted in log σ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.churn import Churn
from sdscratch.diffusion.samplers.first_order import ancestral
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["dpm2", "dpm2_a"]


def midpoint_step(denoise: Denoiser, x: Tensor, sigma: float, next_sigma: float) -> tuple[Tensor, Tensor]:
    """A step along the slope at √(σ·next σ), Euler's where that is 0; and the first estimate of x₀."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    if next_sigma > 0.0:
        middle = math.sqrt(sigma * next_sigma)
        middle_x = x + slope * (middle - sigma)
        slope = (middle_x - denoise(middle_x, middle)) / middle
    return x + slope * (next_sigma - sigma), denoised


def dpm2(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **churning: float
) -> Iterator[Step]:
    """DPM-Solver-2 as k-diffusion has it, in σ (Lu et al. 2022a, algorithm 1; Karras et al. 2022, churn).

    Args:
        churning: as of `euler`.
    """
    churn = Churn(len(sigmas) - 1, **churning)
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x, sigma = churn(x, sigma, noise)
        x, denoised = midpoint_step(denoise, x, sigma, next_sigma)
        yield Step(index, x, denoised, next_sigma)


def dpm2_a(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver-2 down and back up on fresh noise, as `euler_a` is Euler's method (k-diffusion).

    Args:
        eta, s_noise: as of `euler_a`.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        down, up = ancestral(sigma, next_sigma, eta)
        x, denoised = midpoint_step(denoise, x, sigma, down)
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)
