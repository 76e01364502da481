"""Quantiles of the symmetric beta distribution, which one spacing needs: no reason to depend on SciPy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["beta_quantile"]

Array = npt.NDArray[np.float64]

TERMS = 60  # of a series in x ≤ 1/2: beyond float64


def beta_quantile(shares: Array, shape: float) -> Array:
    """Where Beta(a, a) has so much of its mass below, for shares from 0 to 1 and a > 0."""
    return np.array([_quantile(float(share), shape) for share in np.ravel(shares)])


def _quantile(share: float, shape: float) -> float:
    """By Newton's method, kept between bounds that halve where it would leave them."""
    if share <= 0.0 or share >= 1.0:
        return min(max(share, 0.0), 1.0)
    if share > 0.5:
        return 1.0 - _quantile(1.0 - share, shape)
    whole = math.gamma(shape) ** 2 / math.gamma(2.0 * shape)  # B(a, a)
    low, high, x = 0.0, 0.5, min(0.5, (share * shape * whole) ** (1.0 / shape))
    for _ in range(100):
        excess = _mass(x, shape) / whole - share
        low, high = (x, high) if excess < 0.0 else (low, x)
        step = excess * whole / (x * (1.0 - x)) ** (shape - 1.0)
        if abs(step) <= 1e-15 * x:
            break
        x = x - step if low < x - step < high else (low + high) / 2.0
    return float(x)


def _mass(x: float, shape: float) -> float:
    """∫ (t(1−t))^(a−1) dt from 0 to x ≤ 1/2: x^a·Σ (1−a)ₙ/n!·xⁿ/(a+n) (Abramowitz & Stegun, 26.5.4)."""
    total, term = 0.0, 1.0
    for n in range(TERMS):
        total += term / (shape + n)
        term *= (1.0 - shape + n) / (n + 1) * x
    return math.pow(x, shape) * total
