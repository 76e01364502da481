"""Euler's method: the sampler to read first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.churn import Churn
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["euler"]


def euler(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **churning: float
) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 2).

    Args:
        churning: `s_churn`, `s_tmin`, `s_tmax`, `s_noise`, `spare_draws`, as `Churn` has them; without, no
            noise is drawn.
    """
    churn = Churn(len(sigmas) - 1, **churning)
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x, sigma = churn(x, sigma, noise)
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma  # dx/dσ (eq. 3)
        x = x + slope * (next_sigma - sigma)
        yield Step(index, x, denoised, next_sigma)
