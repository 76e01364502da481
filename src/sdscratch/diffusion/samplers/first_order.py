"""The first order, with a share of fresh noise: one loop under many names.

ddim     η       DDIM, spaced and scaled as its reference (catalogue.py)
ddpm     η = 1   DDPM, likewise
euler_a  η = 1   ancestral sampling, spaced as k-diffusion's Euler
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["ancestral", "ddim", "ddpm", "euler_a", "first_order"]


def ancestral(sigma: float, next_sigma: float, eta: float) -> tuple[float, float]:
    """How far down to go from σ, and how much fresh noise to come back up to the next with.

    The two add up in variance: down² + up² = next². With η = 1 the noise is DDPM's (Song et al. 2021a,
    eq. 16, divided by √ᾱ); k-diffusion's ancestral steps are the same.
    """
    fresh = min(eta**2 * (1.0 - (next_sigma / sigma) ** 2), 1.0)  # share of the next variance
    return next_sigma * math.sqrt(1.0 - fresh), next_sigma * math.sqrt(fresh)


def first_order(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021a, eq. 12 and 16, divided by √ᾱ: in σ-space).

    Each step goes down along the ODE's slope, deeper than asked, and comes back up on fresh noise.

    Args:
        eta: the share of fresh noise: 0 none (deterministic), 1 as much as DDPM.
        s_noise: what the noise is multiplied by.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma  # dx/dσ (Karras et al. 2022, eq. 3)
        down, up = ancestral(sigma, next_sigma, eta)
        x = x + slope * (down - sigma)
        if up > 0.0:
            x = x + noise() * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)


def ddim(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float = 0.0
) -> Iterator[Step]:
    """DDIM, the share of fresh noise η from 0 to 1 (Song et al. 2021a, eq. 16)."""
    return first_order(denoise, x, sigmas, noise, eta=eta)


def ddpm(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2 with σ_t² = β̃_t, eq. 7).

    The reference clamps β̃_t at 1e-20; only the last step, to ᾱ = 1, has less: none. The noise of 1e-10 that
    the clamp would add there is below what float32 holds, and is left out.
    """
    return first_order(denoise, x, sigmas, noise, eta=1.0)


def euler_a(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Ancestral sampling with Euler steps (Crowson's k-diffusion; Song et al. 2021b, appendix F)."""
    return first_order(denoise, x, sigmas, noise, eta=eta, s_noise=s_noise)
