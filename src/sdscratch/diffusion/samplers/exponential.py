"""Exponential integrators of later papers: refined steps, stochastic stages, estimated gradients.

With h = log(σ/next σ), all step from x to e^(−h)·x and add estimates of x₀ weighed by φ functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdscratch.diffusion.samplers.first_order import ancestral
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["er_sde", "gradient_estimation", "res_multistep", "res_multistep_a", "seeds_2", "seeds_3"]


def res_multistep(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """The refined exponential solver, multistep, of the second order (Zhang et al. 2023, RES).

    Args:
        eta, s_noise: as of `euler_a`.
    """
    previous: tuple[float, float, Tensor] | None = None  # σ, where the step went down to, the estimate
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, next_sigma, eta)
        if down == 0.0 or previous is None:
            x = x + (x - denoised) / sigma * (down - sigma)
        else:
            h, b1, b2 = res_weights(sigma, down, previous[:2])
            x = math.exp(-h) * x + b1 * denoised + b2 * previous[2]
        if up > 0.0:
            x = x + noise(sigma, next_sigma) * (s_noise * up)
        previous = (sigma, down, denoised)
        yield Step(index, x, denoised, next_sigma)


def res_weights(sigma: float, down: float, previous: tuple[float, float]) -> tuple[float, float, float]:
    """h, and what the newest and the last estimate are multiplied by (Zhang et al. 2023, table 2)."""
    h = math.log(sigma / down)
    share = math.log(previous[1] / previous[0]) / h  # c₂: how far back the last estimate was made
    phi_1 = -math.expm1(-h) / h
    phi_2 = (phi_1 - 1.0) / -h
    second = phi_2 / share if share else 0.0
    return h, h * (phi_1 - second), h * second


def res_multistep_a(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """`res_multistep` down and back up on fresh noise."""
    return res_multistep(denoise, x, sigmas, noise, eta=eta, s_noise=s_noise)


def gradient_estimation(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, *, ge_gamma: float = 2.0
) -> Iterator[Step]:
    """Euler's method with the gradient estimated from two (Permenter & Yuan 2024, algorithm 2).

    Args:
        ge_gamma: γ; 1 is Euler's method.
    """
    before: Tensor | None = None
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        estimated = slope if before is None else slope + (ge_gamma - 1.0) * (slope - before)
        x = denoised if next_sigma == 0.0 else x + estimated * (next_sigma - sigma)
        before = slope
        yield Step(index, x, denoised, next_sigma)


ER_POINTS = 200  # of the reference's sums


def er_noise_scale(sigma: Tensor) -> Tensor:
    """How much of the noise an ER-SDE step keeps, the paper's best (Cui et al. 2023, eq. 30)."""
    return sigma * ((sigma**0.3).exp() + 10.0)


def er_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    s_noise: float = 1.0,
    max_stage: int = 3,
    noise_scale: Callable[[Tensor], Tensor] = er_noise_scale,
) -> Iterator[Step]:
    """ER-SDE-Solver for noise levels that rise without bound (Cui et al. 2023, algorithms 1 to 3).

    Args:
        s_noise: what the noise is multiplied by.
        max_stage: how many derivatives of the estimate are taken, 1 to 3.
        noise_scale: φ(σ) of the extended reverse-time equation.
    """
    levels: list[float] = []
    estimate: Tensor | None = None
    slope: Tensor | None = None
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            ends = torch.tensor([sigma, next_sigma], dtype=torch.float64)
            scale, next_scale = noise_scale(ends).tolist()
            keep, width = next_scale / scale, next_sigma - sigma
            x = keep * x + (1.0 - keep) * denoised
            part = -width / ER_POINTS
            points = (
                ends[1] + torch.arange(ER_POINTS, dtype=torch.float32) * part
            )  # float32, as its reference
            inverse = 1.0 / noise_scale(points)
            newest: Tensor | None = None
            if estimate is not None and max_stage >= 2:
                newest = (denoised - estimate) / (sigma - levels[-1])
                x = x + newest * (width + float(inverse.sum()) * part * next_scale)
                if slope is not None and max_stage >= 3:
                    bend = (newest - slope) / ((sigma - levels[-2]) / 2.0)
                    weight = width**2 / 2.0 + float(((points - sigma) * inverse).sum()) * part * next_scale
                    x = x + bend * weight
            variance = next_sigma**2 - (sigma * keep) ** 2
            if s_noise > 0.0:
                x = x + noise(sigma, next_sigma) * (s_noise * math.sqrt(max(variance, 0.0)))
            slope = newest
        levels.append(sigma)
        estimate = denoised
        yield Step(index, x, denoised, next_sigma)


def seeds_2(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Iterator[Step]:
    """SEEDS-2 (Gonzalez et al. 2023, algorithm 2): 2n−1 denoisings; a noise for each part of a step.

    Args:
        eta: the share of fresh noise; at 0 none is drawn.
        s_noise: what the noise is multiplied by.
        r: where in the step, in log σ, the second estimate is made.
    """
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            stages = Stages(x, sigma, next_sigma, denoised, noise, eta, s_noise)
            middle, middle_x = stages.at(r)
            change = denoise(middle_x, middle) - denoised
            gone = -math.expm1(-stages.z)
            _, x = stages.at(1.0, change * (gone / (2.0 * r)))
        yield Step(index, x, denoised, next_sigma)


def seeds_3(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r_1: float = 1 / 3,
    r_2: float = 2 / 3,
) -> Iterator[Step]:
    """SEEDS-3 (Gonzalez et al. 2023, algorithm 3): 3n−2 denoisings.

    Args:
        eta, s_noise: as of `seeds_2`.
        r_1, r_2: where in the step the second and the third estimate are made.
    """

    def bend(z: float) -> float:
        return 1.0 + math.expm1(-z) / z

    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if next_sigma == 0.0:
            x = denoised
        else:
            stages = Stages(x, sigma, next_sigma, denoised, noise, eta, s_noise)
            middle, middle_x = stages.at(r_1)
            change = denoise(middle_x, middle) - denoised
            middle, middle_x = stages.at(r_2, change * (r_2 / r_1 * bend(r_2 * stages.z)))
            change = denoise(middle_x, middle) - denoised
            _, x = stages.at(1.0, change * (bend(stages.z) / r_2))
        yield Step(index, x, denoised, next_sigma)


class Stages:
    """One step in stages: x at growing shares of it, each with the noise so far and that of one part more."""

    def __init__(
        self,
        x: Tensor,
        sigma: float,
        next_sigma: float,
        denoised: Tensor,
        noise: NoiseSource,
        eta: float,
        s_noise: float,
    ) -> None:
        self.x, self.sigma, self.denoised = x, sigma, denoised
        self.h = math.log(sigma / next_sigma)
        self.z = self.h * (1.0 + eta)
        self._noise, self._eta, self._s_noise = noise, eta, s_noise
        self._share = 0.0
        self._fresh: Tensor | float = 0.0  # of the stage before, over its σ

    def at(self, share: float, more: Tensor | float = 0.0) -> tuple[float, Tensor]:
        """σ at a share of the step, and x there by the first order and `more`."""
        sigma = self.sigma * math.exp(-share * self.h)
        keep = math.exp(-share * self.z)
        x = keep * self.x + (1.0 - keep) * self.denoised + more
        if self._eta > 0.0 and self._s_noise > 0.0:
            width = (share - self._share) * self.h * self._eta
            drawn = self._noise(self.sigma * math.exp(-self._share * self.h), sigma)
            self._fresh = self._fresh * math.exp(-width) + drawn * math.sqrt(-math.expm1(-2.0 * width))
            x = x + self._fresh * (sigma * self._s_noise)
        self._share = share
        return sigma, x
