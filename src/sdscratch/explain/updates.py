"""A sampler's step as a sum with numbers: x′ = a·x + Σ bᵢ·Dᵢ + noise.

Every sampler's step is such a sum of x, of the estimates of x₀ (this step's and those before it) and of fresh
noise. Where a formula is written below, its numbers are the formula's; of every other sampler they are
measured: those that come nearest to the step that was made (least squares).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdscratch.diffusion.samplers.first_order import ancestral

__all__ = ["Update", "update_of"]

Sums = tuple[float, tuple[float, ...], float]  # a; b of the newest estimate and those before; of the noise


@dataclass(frozen=True)
class Update:
    """One step in numbers.

    Attributes:
        keep: a, what x is multiplied by.
        estimates: b of this step's estimates of x₀, the newest first, then of those of the steps before.
        noise: what fresh unit noise is multiplied by; of measured steps what is left, as an RMS.
        left: RMS of x′ less the sum (noise included where its numbers are the formula's: 0 but for rounding).
        exact: whether the numbers are a formula's.
    """

    keep: float
    estimates: tuple[float, ...]
    noise: float
    left: float
    exact: bool


def first_order(sigma: float, next_sigma: float, eta: float) -> Sums:
    """x′ = x + (x − D)/σ·(σ↓ − σ) + σ↑·ε."""
    down, up = ancestral(sigma, next_sigma, eta)
    return down / sigma, (1.0 - down / sigma,), up


def second_multistep(sigma: float, next_sigma: float, previous: float | None) -> Sums:
    """x′ = (σ′/σ)·x + (1 − σ′/σ)·D̃ with D̃ = D + (D − D₋₁)/2r (Lu et al. 2022b, algorithm 2)."""
    keep = next_sigma / sigma
    if previous is None or next_sigma <= 0.0:
        return keep, (1.0 - keep,), 0.0
    more = 1.0 / (2.0 * math.log(previous / sigma) / math.log(sigma / next_sigma))
    return keep, ((1.0 - keep) * (1.0 + more), -(1.0 - keep) * more), 0.0


# (σ, σ′, the σ before, η) → the numbers
FORMULAS: Mapping[str, Callable[[float, float, float | None, float], Sums]] = {
    "euler": lambda sigma, after, before, eta: first_order(sigma, after, 0.0),
    "ddim": lambda sigma, after, before, eta: first_order(sigma, after, eta),
    "ddpm": lambda sigma, after, before, eta: first_order(sigma, after, 1.0),
    "euler_a": lambda sigma, after, before, eta: first_order(sigma, after, 1.0),
    "dpm++2m": lambda sigma, after, before, eta: second_multistep(sigma, after, before),
}
CLOSE = 1e-3  # of x′: a formula whose sum is farther off is not what was computed (another tool's parameters)


def update_of(
    sampler: str,
    x: Tensor,
    estimates: Sequence[Tensor],
    after: Tensor,
    *,
    sigma: float,
    next_sigma: float | None,
    previous_sigma: float | None,
    eta: float,
) -> Update:
    """A step in numbers.

    Args:
        x: the latent that the step began with; `after`: the one that it ended with.
        estimates: of x₀: this step's, the newest first, then those of the steps before, the newest first.
        previous_sigma: where the step before began; None at the first.
        eta: ddim's.
    """
    if sampler in FORMULAS and next_sigma is not None:
        keep, weights, noise = FORMULAS[sampler](sigma, next_sigma, previous_sigma, eta)
        rest = after - keep * x
        for weight, estimate in zip(weights, estimates, strict=False):
            rest = rest - weight * estimate
        off = rms(rest)
        # what is left is the noise itself, where there is any: as much of it as the formula says, to chance
        if abs(off - noise) <= max(CLOSE * rms(after), 6.0 * noise / math.sqrt(2.0 * rest.numel())):
            return Update(keep, weights, noise, 0.0 if noise else off, exact=True)
    return measured(x, estimates, after)


def measured(x: Tensor, estimates: Sequence[Tensor], after: Tensor) -> Update:
    """The sum of x and the estimates that comes nearest to what the step gave."""
    columns = torch.stack([each.flatten().double() for each in (x, *estimates)], dim=1)
    solution = torch.linalg.lstsq(columns, after.flatten().double()[:, None], driver="gelsd").solution
    left = rms(after.flatten().double() - (columns @ solution)[:, 0])
    keep, *weights = solution[:, 0].tolist()
    return Update(keep, tuple(weights), left, left, exact=False)


def rms(x: Tensor) -> float:
    """The root of the mean of squares."""
    return float(x.double().square().mean().sqrt())
