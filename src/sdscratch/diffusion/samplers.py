"""From noise to a latent: samplers as pure generator functions.

All work in σ-space, x = x₀ + σ·noise, down a falling sequence of sigmas (Karras et al. 2022). `denoise(x, σ)`
estimates x₀; `noise()` draws unit noise of x's shape. Nothing else goes in, nothing is kept, every step
comes out. Coefficients are Python floats (float64); latents are float32 tensors [n, c, h, w].

One mathematics has many names: the samplers of the first order are one loop with a share of fresh noise η.

    euler    η = 0   Euler's method on the probability-flow ODE
    euler_a  η = 1   ancestral sampling, spaced as k-diffusion's Euler
    ddim     η       DDIM, spaced and scaled as its reference (schedule.py)
    ddpm     η = 1   DDPM, likewise
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "NoiseSource",
    "Sampler",
    "Step",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "euler",
    "euler_a",
    "heun",
]

Denoiser = Callable[[Tensor, float], Tensor]  # (x [n, c, h, w] in σ-space, σ) → the estimate of x₀ in it
NoiseSource = Callable[[], Tensor]  # → unit noise [n, c, h, w]


@dataclass(frozen=True, eq=False)
class Step:
    """What a sampler reports after each step."""

    index: int  # counted from 0
    latent: Tensor  # x after the step, at noise level `sigma`
    denoised: Tensor  # the newest estimate of x₀
    sigma: float


Sampler = Callable[..., Iterator[Step]]  # (denoise, x, sigmas, noise), and eta for ddim


def euler(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 2 without churn)."""
    return ddim(denoise, x, sigmas, noise, eta=0.0)


def euler_a(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Ancestral sampling with Euler steps (Crowson's k-diffusion; Song et al. 2021b, appendix F)."""
    return ddim(denoise, x, sigmas, noise, eta=1.0)


def ddpm(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2 with σ_t² = β̃_t, eq. 7).

    The reference clamps β̃_t at 1e-20; only the last step, to ᾱ = 1, has less: none. The noise of 1e-10 that
    the clamp would add there is below what float32 holds, and is left out.
    """
    return ddim(denoise, x, sigmas, noise, eta=1.0)


def ddim(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, eta: float = 0.0
) -> Iterator[Step]:
    """DDIM (Song et al. 2021a, eq. 12 and 16, divided by √ᾱ: in σ-space).

    Each step goes down along the ODE's slope, deeper than asked, and comes back up on fresh noise.

    Args:
        eta: the share of fresh noise: 0 none (deterministic), 1 as much as DDPM.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma  # dx/dσ (Karras et al. 2022, eq. 3)
        fresh = eta**2 * (1.0 - (next_sigma / sigma) ** 2)  # share of the next variance
        x = x + slope * (next_sigma * math.sqrt(1.0 - fresh) - sigma)
        if eta > 0.0 and next_sigma > 0.0:
            x = x + noise() * (next_sigma * math.sqrt(fresh))
        yield Step(index, x, denoised, next_sigma)


def heun(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Heun's method of the second order (Karras et al. 2022, algorithm 1): n steps, 2n−1 denoisings."""
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        euler_x = x + slope * (next_sigma - sigma)
        if next_sigma > 0.0:
            denoised = denoise(euler_x, next_sigma)
            next_slope = (euler_x - denoised) / next_sigma
            x = x + (slope + next_slope) / 2.0 * (next_sigma - sigma)
        else:
            x = euler_x
        yield Step(index, x, denoised, next_sigma)


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """DPM-Solver++(2M), midpoint (Lu et al. 2022b, algorithm 2), of first order on the first and last step.

    The paper's λ = log(α/σ) is −log σ in σ-space, and its e^(−h) is next_sigma / sigma.
    """
    previous: tuple[float, Tensor] | None = None
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        if previous is not None and next_sigma > 0.0:
            previous_sigma, previous_denoised = previous
            ratio = math.log(previous_sigma / sigma) / math.log(sigma / next_sigma)  # r = h₋₁/h
            target = denoised + (denoised - previous_denoised) / (2.0 * ratio)
        keep = next_sigma / sigma
        x = keep * x + (1.0 - keep) * target
        previous = (sigma, denoised)
        yield Step(index, x, denoised, next_sigma)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "euler_a": euler_a,
    "heun": heun,
    "dpm++2m": dpmpp_2m,
}
