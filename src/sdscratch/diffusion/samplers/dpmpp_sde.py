"""DPM-Solver++ for the stochastic equation (Lu et al. 2022b, section 3.4; Crowson's k-diffusion).

With h = log(σ/next σ), a step leaves e^(−h(1+η)) of x and adds noise of the variance that the equation says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor

from sdscratch.diffusion.samplers.first_order import ancestral
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "dpmpp_sde"]


def dpmpp_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2S): 2n−1 denoisings, and two noises a step even at η = 0.

    Both noises are of intervals that begin at the step's σ: a Brownian source gives them what they share.

    Args:
        eta: the share of fresh noise.
        s_noise: what the noise is multiplied by.
        r: where in the step, in log σ, the second estimate is made.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            middle = sigma ** (1.0 - r) * next_sigma**r
            down, up = ancestral(sigma, middle, eta)
            keep = down / sigma
            middle_x = keep * x + (1.0 - keep) * denoised + noise(sigma, middle) * (s_noise * up)
            share = 1.0 / (2.0 * r)
            target = (1.0 - share) * denoised + share * denoise(middle_x, middle)
            down, up = ancestral(sigma, next_sigma, eta)
            keep = down / sigma
            x = keep * x + (1.0 - keep) * target + noise(sigma, next_sigma) * (s_noise * up)
        yield Step(index, x, denoised, next_sigma)


def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b, eq. 19 and what follows); with η = 0 it is `dpmpp_2m`.

    Args:
        eta, s_noise: as of `dpmpp_sde`.
        solver_type: how the change of the estimate is weighed, by the middle of the step or by both ends.
    """
    previous: tuple[float, Tensor] | None = None  # the last step's h, and its estimate
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            h = math.log(sigma / next_sigma)
            gone = -math.expm1(-h * (1.0 + eta))
            x = (1.0 - gone) * x + gone * denoised
            if previous is not None:
                change = (denoised - previous[1]) * (h / previous[0])
                weight = gone / 2.0 if solver_type == "midpoint" else 1.0 - gone / (h * (1.0 + eta))
                x = x + change * weight
            x = add_noise(x, noise, sigma, next_sigma, eta, s_noise)
            previous = (h, denoised)
        yield Step(index, x, denoised, next_sigma)


def dpmpp_2m_sde_heun(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **parameters: float
) -> Iterator[Step]:
    """`dpmpp_2m_sde`, with its parameters, and the change weighed by both ends of the step."""
    return dpmpp_2m_sde(denoise, x, sigmas, noise, solver_type="heun", **parameters)


def dpmpp_3m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M), k-diffusion's: first and second differences of three estimates.

    Args:
        eta, s_noise: as of `dpmpp_sde`.
    """
    widths: list[float] = []  # the last two steps' h, the newest first
    estimates: list[Tensor] = []
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            h = math.log(sigma / next_sigma)
            z = h * (1.0 + eta)
            x = math.exp(-z) * x - math.expm1(-z) * denoised
            phi_2 = math.expm1(-z) / z + 1.0
            if widths:
                ratio = widths[0] / h
                first = (denoised - estimates[0]) / ratio
                if len(widths) > 1:
                    older = widths[1] / h
                    second = (first - (estimates[0] - estimates[1]) / older) / (ratio + older)
                    first = first + second * ratio
                    x = x - second * (phi_2 / z - 0.5)
                x = x + first * phi_2
            x = add_noise(x, noise, sigma, next_sigma, eta, s_noise)
            widths, estimates = [h, *widths][:2], [denoised, *estimates][:2]
        yield Step(index, x, denoised, next_sigma)


def add_noise(
    x: Tensor, noise: NoiseSource, sigma: float, next_sigma: float, eta: float, s_noise: float
) -> Tensor:
    """x with the step's fresh noise, of variance next² (1 − (next/σ)^(2η)); none is drawn at η = 0."""
    if eta == 0.0:
        return x
    fresh = -math.expm1(-2.0 * eta * math.log(sigma / next_sigma))
    return x + noise(sigma, next_sigma) * (next_sigma * math.sqrt(fresh) * s_noise)
