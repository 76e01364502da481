"""Heun's method and what is built on it: three slopes, and going back up to do a stretch again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdscratch.diffusion.samplers.churn import Churn
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["heun", "heunpp2", "restart"]


def heun_step(denoise: Denoiser, x: Tensor, sigma: float, next_sigma: float) -> tuple[Tensor, Tensor]:
    """Euler's step, corrected by the slope at its end unless that is σ = 0; and the first estimate of x₀."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    euler_x = x + slope * (next_sigma - sigma)
    if next_sigma == 0.0:
        return euler_x, denoised
    next_slope = (euler_x - denoise(euler_x, next_sigma)) / next_sigma
    return x + (slope + next_slope) / 2.0 * (next_sigma - sigma), denoised


def heun(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **churning: float
) -> Iterator[Step]:
    """Heun's method of the second order (Karras et al. 2022, algorithm 2): n steps, 2n−1 denoisings.

    Args:
        churning: as of `euler`.
    """
    churn = Churn(len(sigmas) - 1, **churning)
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x, sigma = churn(x, sigma, noise)
        x, denoised = heun_step(denoise, x, sigma, next_sigma)
        yield Step(index, x, denoised, next_sigma)


def heunpp2(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **churning: float
) -> Iterator[Step]:
    """Heun++: the slopes at a step's start and at two points ahead, weighted by their noise levels.

    From Carzit's sd-webui-samplers-scheduler, as Forge and ComfyUI have it; there is no paper. n steps, 3n−3
    denoisings: the last two steps have one point ahead and none.

    Args:
        churning: as of `euler`.
    """
    churn = Churn(len(sigmas) - 1, **churning)
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        x, sigma = churn(x, sigma, noise)
        denoised = denoise(x, sigma)
        ahead = sigmas[index + 1 : index + 3]
        if len(ahead) > 1 and ahead[-1] == sigmas[-1]:
            ahead = ahead[:1]  # no slope is taken at the end
        elif next_sigma == sigmas[-1]:
            ahead = ()
        slopes, at, level = [(x - denoised) / sigma], x, sigma
        for target in ahead:
            at = at + slopes[-1] * (target - level)
            slopes.append((at - denoise(at, target)) / target)
            level = target
        weights = [target / ((len(ahead) + 1) * sigmas[0]) for target in ahead]
        slope = slopes[0] * (1.0 - sum(weights))
        for weight, other in zip(weights, slopes[1:], strict=True):
            slope = slope + other * weight
        x = x + slope * (next_sigma - sigma)
        yield Step(index, x, denoised, next_sigma)


Restarts = Mapping[float | str, Sequence[float]]


def restart(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    s_noise: float = 1.0,
    restart_list: Restarts | None = None,
) -> Iterator[Step]:
    """Heun's method that goes back up on fresh noise and down again (Xu et al. 2023, algorithm 1).

    Args:
        s_noise: what the noise is multiplied by.
        restart_list: {σ to go up from: (points of the way down, times, σ to go up to)}, each σ moved to the
            nearest of `sigmas`. By default, as the web UI chooses: none below 20 steps; one of 9 steps from
            0.1 to 2 from 20 on; from 36 on two, of a quarter of the steps. These are taken from the whole,
            whose rest is spaced after Karras again.
    """
    visited, restarts = list(sigmas), restart_list or {}
    if restart_list is None and len(sigmas) > 20:
        steps = len(sigmas) - 1
        length, times = (steps // 4, 2) if steps >= 36 else (9, 1)
        visited = karras32(steps - length * times, sigmas[-2], sigmas[0])
        restarts = {0.1: (length + 1, times, 2.0)}
    level = visited[0]
    for index, (sigma, next_sigma) in enumerate(restarted(visited, restarts)):
        if sigma > level:
            x = x + noise() * (s_noise * math.sqrt(sigma**2 - level**2))
        x, denoised = heun_step(denoise, x, sigma, next_sigma)
        level = next_sigma
        yield Step(index, x, denoised, next_sigma)


def restarted(sigmas: Sequence[float], restarts: Restarts) -> Iterator[tuple[float, float]]:
    """Every step's two noise levels, those of the restarts among them."""

    def nearest(level: float) -> int:
        return min(range(len(sigmas)), key=lambda index: abs(sigmas[index] - level))

    by_place = {nearest(float(low)): plan for low, plan in restarts.items()}
    for index, pair in enumerate(pairwise(sigmas), 1):
        yield pair
        if index in by_place:
            points, times, high = by_place[index]
            top = nearest(high)
            if top < index:
                again = karras32(int(points), sigmas[index], sigmas[top])[:-1]
                for _ in range(int(times)):
                    yield from pairwise(again)


def karras32(steps: int, low: float, high: float) -> list[float]:
    """The spacing of Karras et al. 2022 (eq. 5) and a final 0, in float32 as the reference has it here."""
    ramp = torch.linspace(0, 1, steps)
    rooted_low, rooted_high = low ** (1 / 7), high ** (1 / 7)
    levels: list[float] = ((rooted_high + ramp * (rooted_low - rooted_high)) ** 7).tolist()
    return [*levels, 0.0]
