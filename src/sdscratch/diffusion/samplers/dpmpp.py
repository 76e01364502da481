"""DPM-Solver++ (Lu et al. 2022b): the estimate of x₀ in place of the noise, in λ = −log σ.

In σ-space the paper's α is 1 and its σ is σ; e^(−h) is next_sigma / sigma.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from sdscratch.diffusion.samplers.first_order import ancestral
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["dpmpp_2m", "dpmpp_2s_a"]


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """DPM-Solver++(2M), midpoint (Lu et al. 2022b, algorithm 2); first and last step of first order."""
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


def dpmpp_2s_a(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1, r = 1/2), ancestral (k-diffusion): 2n−1 denoisings.

    Args:
        eta, s_noise: as of `euler_a`.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        down, up = ancestral(sigma, next_sigma, eta)
        if down > 0.0:
            middle = math.sqrt(sigma * down)
            keep = middle / sigma
            target = denoise(keep * x + (1.0 - keep) * denoised, middle)
        keep = down / sigma
        x = keep * x + (1.0 - keep) * target
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)
