"""CFG++ (Chung et al. 2024): go to the guided estimate of x₀, and on in the direction of the unguided noise.

What these samplers need besides `denoise` is the estimate without the prompt, of the same x and σ: the
parameter `unconditional`, else an attribute of that name of `denoise` (guidance.py has one). Without either
there is no guidance, both estimates are the same, and each is the sampler of its name without CFG++.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.exponential import res_weights
from sdscratch.diffusion.samplers.first_order import ancestral
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = [
    "dpmpp_2m_cfgpp",
    "dpmpp_2s_a_cfgpp",
    "euler_a_cfgpp",
    "euler_cfgpp",
    "gradient_estimation_cfgpp",
    "res_multistep_a_cfgpp",
    "res_multistep_cfgpp",
]


def both(denoise: Denoiser, unconditional: Denoiser | None, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The guided estimate of x₀ and the one without the prompt."""
    denoised = denoise(x, sigma)
    without: Denoiser | None = unconditional or getattr(denoise, "unconditional", None)
    return denoised, denoised if without is None else without(x, sigma)


def euler_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DDIM with CFG++ (Chung et al. 2024, algorithm 2), in σ-space.

    Args:
        unconditional: the estimate of x₀ without the prompt.
        eta, s_noise: as of `euler_a`.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised, without = both(denoise, unconditional, x, sigma)
        down, up = ancestral(sigma, next_sigma, eta)
        x = denoised + (x - without) * (down / sigma)
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)


def euler_a_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """`euler_cfgpp` down and back up on fresh noise."""
    return euler_cfgpp(denoise, x, sigmas, noise, unconditional=unconditional, eta=eta, s_noise=s_noise)


def dpmpp_2m_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M) with CFG++ (Chung et al. 2024, algorithm 4).

    Args:
        unconditional: the estimate of x₀ without the prompt.
    """
    previous: tuple[float, Tensor] | None = None  # the last σ, and its estimate without the prompt
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised, without = both(denoise, unconditional, x, sigma)
        keep = next_sigma / sigma
        x = denoised + keep * (x - without)
        if previous is not None and next_sigma > 0.0:
            ratio = math.log(previous[0] / sigma) / math.log(sigma / next_sigma)
            x = x + (1.0 - keep) / (2.0 * ratio) * (denoised - previous[1])
        previous = (sigma, without)
        yield Step(index, x, denoised, next_sigma)


def dpmpp_2s_a_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++(2S), ancestral, with CFG++ as ComfyUI has it.

    Args:
        unconditional: the estimate of x₀ without the prompt.
        eta, s_noise: as of `euler_a`.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised, without = both(denoise, unconditional, x, sigma)
        down, up = ancestral(sigma, next_sigma, eta)
        target, keep = denoised, down / sigma
        if down > 0.0:
            middle = math.sqrt(sigma * down)
            half = middle / sigma
            middle_x = half * (x + (denoised - without)) + (1.0 - half) * denoised
            target, without = both(denoise, unconditional, middle_x, middle)
        x = keep * (x + (denoised - without)) + (1.0 - keep) * target
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)


def res_multistep_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """The refined exponential solver with CFG++ as ComfyUI has it; arguments as of `euler_cfgpp`."""
    previous: tuple[float, float, Tensor] | None = None
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised, without = both(denoise, unconditional, x, sigma)
        down, up = ancestral(sigma, next_sigma, eta)
        if down == 0.0 or previous is None:
            x = denoised + (x - without) * (down / sigma)
        else:
            h, b1, b2 = res_weights(sigma, down, previous[:2])
            x = math.exp(-h) * (x + (denoised - without)) + b1 * without + b2 * previous[2]
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        previous = (sigma, down, without)
        yield Step(index, x, denoised, next_sigma)


def res_multistep_a_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """`res_multistep_cfgpp` down and back up on fresh noise."""
    return res_multistep_cfgpp(
        denoise, x, sigmas, noise, unconditional=unconditional, eta=eta, s_noise=s_noise
    )


def gradient_estimation_cfgpp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    unconditional: Denoiser | None = None,
    ge_gamma: float = 2.0,
) -> Iterator[Step]:
    """`gradient_estimation` with CFG++ as ComfyUI has it.

    Args:
        unconditional: the estimate of x₀ without the prompt.
        ge_gamma: as of `gradient_estimation`.
    """
    before: Tensor | None = None
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised, without = both(denoise, unconditional, x, sigma)
        slope = (x - without) / sigma
        x = denoised + slope * next_sigma
        if before is not None and next_sigma > 0.0:
            x = x + (slope - before) * ((ge_gamma - 1.0) * (next_sigma - sigma))
        before = slope
        yield Step(index, x, denoised, next_sigma)
