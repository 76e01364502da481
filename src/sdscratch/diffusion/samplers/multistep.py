"""Linear multistep methods: the slopes of the steps before, extrapolated over the next.

All step along dx/dσ = (x − x₀)/σ and differ in how they weigh its newest values: Adams and Bashforth's
weights for equal steps (plms, ipndm), those for the steps as they are (lms, ipndm_v), or the same in the
time of a variance-preserving process (deis).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["deis", "ipndm", "ipndm_v", "lms", "plms"]

Weights = Callable[[int], Sequence[float]]  # a step's index → what it multiplies the newest slopes by

# Adams–Bashforth, the newest slope first (Liu et al. 2022, eq. 12; Zhang & Chen 2023, eq. 17)
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def lms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    order: int = 4,
    ends_denoised: bool = False,
) -> Iterator[Step]:
    """Adams and Bashforth's method in σ, the weights integrated over each step as it is (k-diffusion).

    Args:
        order: how many slopes at most.
        ends_denoised: a step to σ = 0 gives the estimate of x₀, as in ComfyUI; by default one like all
            others, as in k-diffusion and the web UIs. The results differ by up to 6 %.
    """

    def weights(index: int) -> Sequence[float]:
        nodes = [sigmas[index - back] for back in range(min(order, index + 1))]
        return lagrange_integrals(nodes, sigmas[index], sigmas[index + 1])

    return linear_multistep(denoise, x, sigmas, weights, ends_denoised)


def ipndm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    max_order: int = 4,
    ends_denoised: bool = False,
) -> Iterator[Step]:
    """Improved PNDM (Zhang & Chen 2023, appendix H.2): the weights for equal steps, whatever the steps.

    Args:
        max_order: how many slopes at most, 1 to 4.
        ends_denoised: as of `lms`.
    """

    def weights(index: int) -> Sequence[float]:
        width = sigmas[index + 1] - sigmas[index]
        return [width * share for share in ADAMS_BASHFORTH[min(max_order, index + 1) - 1]]

    return linear_multistep(denoise, x, sigmas, weights, ends_denoised)


def ipndm_v(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    max_order: int = 4,
    ends_denoised: bool = False,
) -> Iterator[Step]:
    """`ipndm` with weights for steps of different length (Chen et al. 2024, diff-solvers; Forge, ComfyUI).

    Not Adams and Bashforth's own, which `lms` has: from the third on the reference groups a product
    otherwise, and the shares of the fourth do not even add up to 1. Pictures are made with what it computes.

    Args:
        max_order, ends_denoised: as of `ipndm`.
    """

    def weights(index: int) -> Sequence[float]:
        order = min(max_order, index + 1)
        widths = [sigmas[index + 1 - back] - sigmas[index - back] for back in range(order)]
        return [widths[0] * share for share in variable_adams_bashforth(widths)]

    return linear_multistep(denoise, x, sigmas, weights, ends_denoised)


def variable_adams_bashforth(widths: Sequence[float]) -> list[float]:
    """The reference's shares of the newest slopes, from the widths of the steps, this one's first."""
    h, *older = widths
    if not older:
        return [1.0]
    h1 = older[0]
    shares = [1.0 + h / h1 / 2.0, -h / h1 / 2.0, 0.0, 0.0]
    if len(older) > 1:
        h2 = older[1]
        bend = (1.0 - h / (3.0 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2.0
        shares = [shares[0] + bend, shares[1] - (1.0 + h1 / h2) * bend, bend * h1 / h2, 0.0]
    if len(older) > 2:
        h3 = older[2]
        turn = (1.0 - h / (3.0 * (h + h1))) / 2.0
        turn += (1.0 - h / (2.0 * (h + h1))) * h / (6.0 * (h + h1 + h2))
        turn *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        fall = h1 * (h1 + h2) / (h2 * (h2 + h3))
        shares[0] += turn
        shares[1] -= (1.0 + h1 / h2 + fall) * turn
        shares[2] += (h1 / h2 + fall * (1.0 + h2 / h3)) * turn
        shares[3] -= turn * fall * h1 / h2
    return shares[: len(widths)]


def deis(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    max_order: int = 3,
) -> Iterator[Step]:
    """DEIS with tabulated coefficients, tAB (Zhang & Chen 2023, eq. 15), as Forge and ComfyUI have it.

    The slope is extrapolated by a polynomial in the time t of the process of Song et al. 2021b (eq. 33) whose
    noise levels run from 0.002 to 80, and integrated as the reference does: a sum over 10,000 points.

    Args:
        max_order: how many slopes at most.
    """
    clock = Clock()
    times = [clock.time(sigma) for sigma in sigmas]

    def weights(index: int) -> Sequence[float]:
        order = min(max_order, index + 1) if sigmas[index + 1] > 0.0 else 1
        if order == 1:
            return [sigmas[index + 1] - sigmas[index]]
        start, end = times[index], times[index + 1]
        points = torch.linspace(start, end, DEIS_POINTS, dtype=torch.float64)
        speed, part = clock.speed(points), (end - start) / DEIS_POINTS
        nodes = [times[index - back] for back in range(order)]
        return [float((speed * lagrange(nodes, j, points)).sum()) * part for j in range(order)]

    return linear_multistep(denoise, x, sigmas, weights, ends_denoised=False)


def linear_multistep(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], weights: Weights, ends_denoised: bool
) -> Iterator[Step]:
    """A step is the newest slopes, each times its weight."""
    slopes: list[Tensor] = []  # the newest first
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if ends_denoised and next_sigma == 0.0:
            x = denoised
        else:
            shares = weights(index)
            slopes = [(x - denoised) / sigma, *slopes][: max(len(shares), 4)]
            for share, slope in zip(shares, slopes, strict=False):
                x = x + slope * share
        yield Step(index, x, denoised, next_sigma)


def plms(denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource) -> Iterator[Step]:
    """Pseudo linear multistep, PNDM without its Runge–Kutta start (Liu et al. 2022, eq. 12 and 22).

    The first step is Heun's: tried, and done again with the mean of the slopes at both ends. n steps, n+1
    denoisings.
    """
    slopes: list[Tensor] = []
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes][:4]
        slope = sum((s * w for s, w in zip(slopes, ADAMS_BASHFORTH[len(slopes) - 1], strict=True)), x * 0.0)
        if index == 0 and len(sigmas) > 2:
            tried = x + slope * (next_sigma - sigma)
            slope = (slope + (tried - denoise(tried, next_sigma)) / next_sigma) / 2.0
        x = x + slope * (next_sigma - sigma)
        yield Step(index, x, denoised, next_sigma)


# Polynomials


def lagrange(nodes: Sequence[float], j: int, at: Tensor) -> Tensor:
    """Lagrange's polynomial that is 1 at node j and 0 at the others."""
    value = torch.ones_like(at)
    for k, other in enumerate(nodes):
        if k != j:
            value = value * ((at - other) / (nodes[j] - other))
    return value


def lagrange_integrals(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Each node's polynomial, integrated from start to end; exact (Gauss–Legendre)."""
    points, shares = map(torch.from_numpy, np.polynomial.legendre.leggauss((len(nodes) + 1) // 2))
    at, half = (start + end) / 2 + (end - start) / 2 * points, (end - start) / 2
    return [float(half * (shares * lagrange(nodes, j, at)).sum()) for j in range(len(nodes))]


# DEIS' time

DEIS_POINTS = 10_000
T_MIN, SIGMA_MIN, SIGMA_MAX = 1e-3, 0.002, 80.0  # the process that the reference assumes


class Clock:
    """The time of a variance-preserving process, log(1 + σ²) = β_d·t²/2 + β_min·t (Song et al. 2021b)."""

    def __init__(self) -> None:
        low, high = math.log(SIGMA_MIN**2 + 1.0), math.log(SIGMA_MAX**2 + 1.0)
        self.beta_d = 2.0 * (low / T_MIN - high) / (T_MIN - 1.0)
        self.beta_min = high - self.beta_d / 2.0

    def time(self, sigma: float) -> float:
        """t at σ."""
        root = math.sqrt(self.beta_min**2 + 2.0 * self.beta_d * math.log(sigma**2 + 1.0))
        return (root - self.beta_min) / self.beta_d

    def speed(self, times: Tensor) -> Tensor:
        """What a slope dx/dσ is multiplied by to be one in t (the reference's integrand)."""
        rate = self.beta_d * times + self.beta_min
        alpha = torch.exp(-0.5 * self.beta_d * times**2 - self.beta_min * times)
        return 0.5 * rate / torch.sqrt(alpha * (1.0 - alpha))
