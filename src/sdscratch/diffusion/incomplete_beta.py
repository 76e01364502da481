"""Quantiles of the symmetric beta distribution, which one spacing needs: no reason to depend on SciPy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["beta_quantile"]

Array = npt.NDArray[np.float64]

POINTS = 64  # of the quadrature; 1e-14 for shapes around a half


def beta_quantile(shares: Array, shape: float) -> Array:
    """Where Beta(a, a) has so much of its mass below, for shares from 0 to 1 and a > 0.

    With x = sin²(θ), the density (x(1−x))^(a−1) dx is 2·(sin θ·cos θ)^(2a−1) dθ. Newton's method, kept
    between bounds that halve where it would leave them.
    """
    return np.array([_quantile(float(share), shape) for share in np.ravel(shares)])


def _quantile(share: float, shape: float) -> float:
    if share <= 0.0 or share >= 1.0:
        return min(max(share, 0.0), 1.0)
    if share > 0.5:
        return 1.0 - _quantile(1.0 - share, shape)
    low, high, theta = 0.0, math.pi / 4, math.pi / 4 * (2.0 * share) ** (0.5 / shape)
    for _ in range(100):
        excess = _mass(theta, shape) - share
        low, high = (theta, high) if excess < 0.0 else (low, theta)
        step = excess / _density(theta, shape)
        theta = theta - step if low < theta - step < high else (low + high) / 2.0
        if abs(step) < 1e-16 or high - low < 1e-16:
            break
    return math.sin(theta) ** 2


def _density(theta: float, shape: float) -> float:
    whole = math.gamma(shape) ** 2 / math.gamma(2.0 * shape)
    return 2.0 * math.pow(math.sin(theta) * math.cos(theta), 2.0 * shape - 1.0) / whole


def _mass(theta: float, shape: float) -> float:
    """The density integrated from 0; in u = θ^(2a), in which it is smooth at 0."""
    power = 2.0 * shape
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    at = theta * ((nodes + 1.0) / 2.0) ** (1.0 / power)
    smooth = (np.sin(at) * np.cos(at) / at) ** (power - 1.0)
    whole = math.gamma(shape) ** 2 / math.gamma(2.0 * shape)
    return float(2.0 * theta**power / power * np.sum(weights / 2.0 * smooth) / whole)
