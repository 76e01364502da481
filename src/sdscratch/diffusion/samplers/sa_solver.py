"""SA-Solver (Xue et al. 2023): a stochastic Adams predictor and corrector of any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["sa_solver", "sa_solver_pece"]

# Between these levels noise is drawn: those at 80 and 20 % of Stable Diffusion 1.x's timesteps (ComfyUI's)
NOISY = (0.5711888666, 5.0924075907)


def sa_solver(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noisy: tuple[float, float] = NOISY,
    predictor_order: int = 3,
    corrector_order: int = 4,
    pece: bool = False,
) -> Iterator[Step]:
    """Predict a step, ask the network at its end, do the step again with what it said (algorithm 1).

    n steps, n denoisings. Both ways are eq. 14 and 17 of the paper with a constant τ, in σ-space, where
    λ = −log σ. Orders fall towards an end at σ = 0, and the step there is the estimate of x₀, as ComfyUI has
    it.

    Args:
        eta: τ, the share of fresh noise, for steps that end at levels within `noisy`; elsewhere 0.
        s_noise: what the noise is multiplied by.
        noisy: the lower and the upper noise level.
        predictor_order, corrector_order: of how many estimates; no more than there are.
        pece: ask the network again after the correction, 2n − 1 denoisings.
    """
    to_zero = sigmas[-1] == 0.0
    steps = len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []  # σ and the estimate there, the newest last
    start, drawn, tau = x, None, 0.0  # of the newest step: where it began, its noise, and its τ
    for index, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        newest = denoised = denoise(x, sigma)
        history = [*history, (sigma, denoised)][-max(predictor_order, corrector_order) :]
        predicted, corrected = min(predictor_order, len(history)), min(corrector_order, len(history))
        if to_zero:
            predicted, corrected = min(predicted, steps - 1 - index), min(corrected, steps - index)
        if index > 0 and (next_sigma > 0.0 or pece):
            x = adams(start, sigmas[index - 1], sigma, history[-corrected:], tau)
            x = x if drawn is None else x + drawn
            if pece:
                newest = denoise(x, sigma)
                history[-1] = (sigma, newest)
        start = x
        if next_sigma == 0.0:
            x = newest
        else:
            tau, drawn = eta if noisy[0] <= next_sigma <= noisy[1] else 0.0, None
            x = adams(start, sigma, next_sigma, history[-predicted:], tau)
            if tau > 0.0 and s_noise > 0.0:
                gone = -math.expm1(-2.0 * tau**2 * math.log(sigma / next_sigma))
                drawn = noise(sigma, next_sigma) * (next_sigma * math.sqrt(gone) * s_noise)
                x = x + drawn
        yield Step(index, x, denoised, next_sigma)


def sa_solver_pece(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noisy: tuple[float, float] = NOISY,
    predictor_order: int = 3,
    corrector_order: int = 4,
) -> Iterator[Step]:
    """`sa_solver` that asks the network after every correction, too: 2n − 1 denoisings."""
    return sa_solver(
        denoise,
        x,
        sigmas,
        noise,
        eta=eta,
        s_noise=s_noise,
        noisy=noisy,
        predictor_order=predictor_order,
        corrector_order=corrector_order,
        pece=True,
    )


def adams(
    x: Tensor, sigma: float, next_sigma: float, history: Sequence[tuple[float, Tensor]], tau: float
) -> Tensor:
    """One step without its noise: e^(−(1+τ²)·h)·x + Σ bⱼ·x₀ⱼ, h = log(σ/next σ).

    bⱼ is the integral of (1+τ²)·e^((1+τ²)·u)·lⱼ(u) over u = λ − λ(next σ) from −h to 0, lⱼ being the
    polynomial that is 1 at the j-th estimate's λ and 0 at the others' (section 4.1).
    """
    rate, h = 1.0 + tau**2, math.log(sigma / next_sigma)
    gone = math.exp(-rate * h)
    moments = [1.0 - gone]  # the same integral of 1, u, u², …
    for power in range(1, len(history)):
        moments.append(-gone * (-h) ** power - power / rate * moments[-1])
    at = np.array([math.log(next_sigma / level) for level, _ in history])
    weights = np.linalg.solve(np.vander(at, increasing=True).T, np.array(moments))
    x = gone * x
    for weight, (_, estimate) in zip(weights.tolist(), history, strict=True):
        x = x + weight * estimate
    return x
