"""UniPC (Zhao et al. 2023): one predictor and corrector of any order, that share every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["unipc", "unipc_bh2"]

Array = npt.NDArray[np.float64]
Variant = Literal["bh1", "bh2", "vary_coeff"]

LEAST_SIGMA = 0.001  # in place of 0, whose logarithm is none; ComfyUI's


def unipc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    variant: Variant = "bh1",
    order: int = 3,
    lower_order_final: bool = True,
    ends_denoised: bool = False,
) -> Iterator[Step]:
    """UniPC-p that predicts x₀ (Zhao et al. 2023, algorithms 7 and 8): n steps, n denoisings.

    A step is predicted, the network asked at its end, and the step done again with what it said; the last
    one alone is not. A final sigma of 0 is taken as 0.001, and all as ComfyUI
    counts, who alone asks for it (`rounded`).

    Args:
        variant: B(h) = h ("bh1"), B(h) = e^h − 1 ("bh2"), or coefficients that vary with the order's terms
            (appendix C, "vary_coeff").
        order: how many estimates at most; fewer where there are fewer than two steps more.
        lower_order_final: lower the order towards the end.
        ends_denoised: a step to σ = 0 gives the estimate of x₀, as in diffusers.
    """
    exact = ends_denoised or sigmas[-1] > 0.0
    levels = list(sigmas) if exact else [rounded(max(sigma, LEAST_SIGMA)) for sigma in sigmas]
    steps = len(levels) - 1
    order = min(order, max(steps - 1, 1))
    history = [(levels[0], denoise(x, sigmas[0]))]  # the newest last
    for index, next_sigma in enumerate(levels[1:]):
        sigma, denoised = history[-1]
        used = history[-min(order, steps - index) :] if lower_order_final else history[-order:]
        if next_sigma == 0.0:
            yield Step(index, denoised, denoised, 0.0)
            return
        keep = next_sigma / sigma
        base = keep * x + (1.0 - keep) * denoised  # the first order
        h = math.log(sigma / next_sigma)
        ratios = [-math.log(older / sigma) / h for older, _ in used[-2::-1]]
        changes = [
            (estimate - denoised) / ratio for ratio, (_, estimate) in zip(ratios, used[-2::-1], strict=True)
        ]
        predictor, corrector = WEIGHTS[variant](h, [*ratios, 1.0])
        x = weighted(base, predictor, changes)
        if index + 1 < steps:
            estimate = denoise(x, sigmas[index + 1])
            x = weighted(base, corrector, [*changes, estimate - denoised])
            history.append((next_sigma, estimate))
        yield Step(index, x, denoised, sigmas[index + 1])


def rounded(sigma: float) -> float:
    """√(1/ᾱ − 1) with ᾱ = 1/(1 + σ²) in float32, which near σ = 0.001 is 2 % off."""
    log_alpha = np.float32(0.5) * np.log(np.float32(1.0) / (np.float32(sigma) ** 2 + np.float32(1.0)))
    alpha_bar = float(np.exp(np.float32(2.0) * log_alpha))
    return math.sqrt(1.0 / alpha_bar - 1.0)


def weighted(base: Tensor, weights: Iterable[float], changes: Sequence[Tensor]) -> Tensor:
    """What is added to the first order's step."""
    for weight, change in zip(weights, changes, strict=True):
        base = base + weight * change
    return base


# Weights of the changes (of older estimates, each over its ratio r, and last of the one at the step's end)


def by_b_of_h(b_of_h: Callable[[float], float], h: float, ratios: Sequence[float]) -> tuple[Array, Array]:
    """Of predictor and corrector, from R(h)·a = φ(h)/B(h) (Zhao et al. 2023, eq. 5 and 8)."""
    order, b = len(ratios), b_of_h(-h)
    rows = np.vander(ratios, order, increasing=True).T
    values = np.array([phi * math.factorial(k + 1) for k, phi in enumerate(phis(h, order))]) / b
    # at these orders the reference takes a half in place of the solution
    predictor = np.linalg.solve(rows[:-1, :-1], values[:-1]) if order != 2 else np.array([0.5])
    corrector = np.linalg.solve(rows, values) if order > 1 else np.array([0.5])
    return -b * predictor, -b * corrector


def varying(h: float, ratios: Sequence[float]) -> tuple[Array, Array]:
    """Of predictor and corrector, each order's φ apart (Zhao et al. 2023, appendix C)."""
    order = len(ratios)
    powers = np.array([[r**k / math.factorial(k + 1) for k in range(order)] for r in ratios])
    values = np.array(phis(h, order))
    predictor = values[:-1] @ np.linalg.inv(powers[:-1, :-1])
    inverse = np.linalg.inv(powers)
    corrector = values[:-1] @ inverse[:-1]
    # the reference weighs the newest change by the row before the last
    corrector[-1] = values[-1] * inverse[max(order - 2, 0), -1]
    return -predictor, -corrector


def phis(h: float, count: int) -> list[float]:
    """φ₂ … of −h, as the reference counts: φ₁ = e^(−h) − 1, φₖ₊₁ = φₖ/(−h) − 1/k!."""
    values, phi = [], math.expm1(-h)
    for k in range(1, count + 1):
        phi = phi / -h - 1.0 / math.factorial(k)
        values.append(phi)
    return values


WEIGHTS: dict[Variant, Callable[[float, Sequence[float]], tuple[Array, Array]]] = {
    "bh1": partial(by_b_of_h, lambda hh: hh),
    "bh2": partial(by_b_of_h, math.expm1),
    "vary_coeff": varying,
}


def unipc_bh2(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, **parameters: Any
) -> Iterator[Step]:
    """`unipc` with B(h) = e^h − 1, and its other parameters."""
    return unipc(denoise, x, sigmas, noise, variant="bh2", **parameters)
