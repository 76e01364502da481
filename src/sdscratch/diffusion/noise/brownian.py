"""Noise of intervals: increments of one Brownian path a picture, wherever and in whatever order one asks.

The path is a tree of bridges (Lévy 1948; Li et al. 2020, algorithm 3), of which every node's seed follows
from the root's: that of torchsde's `BrownianTree`, which drew the web UIs' and ComfyUI's pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["BrownianNoise", "BrownianTree"]

POOL = 24  # words of entropy in torchsde's seeds
DECIMALS = 6  # to which times are rounded


class BrownianTree:
    """One Brownian path over [low, high].

    Args:
        seed: of the root.
        shape: of the path's values.
        low, high: the ends, in any unit of time.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], low: float, high: float) -> None:
        self.shape, self._seed = shape, seed
        self.low, self.high = round(low, DECIMALS), round(high, DECIMALS)
        root = np.random.SeedSequence(seed, pool_size=POOL).generate_state(3)[0]
        self._whole = math.sqrt(self.high - self.low) * self._normal(int(root))

    def increment(self, start: float, end: float) -> Tensor:
        """What the path gains from one time to a later one, clipped to its ends."""
        start = min(max(round(start, DECIMALS), self.low), self.high)
        end = min(max(round(end, DECIMALS), self.low), self.high)
        return self._within(start, end, self.low, self.high, self._whole, 0, 0)

    def _within(
        self, start: float, end: float, left: float, right: float, whole: Tensor, key: int, depth: int
    ) -> Tensor:
        """The part of a node's increment that lies between two times."""
        if start <= left and right <= end:
            return whole
        middle = round((left + right) / 2.0, DECIMALS)
        if start >= right or end <= left or not left < middle < right:
            return torch.zeros_like(whole)
        state = np.random.SeedSequence(self._seed, spawn_key=(key, depth), pool_size=POOL).generate_state(4)
        spread = math.sqrt((middle - left) * (right - middle) / (right - left))
        first = (middle - left) / (right - left) * whole + spread * self._normal(int(state[0]))
        parts = []
        if start < middle:
            parts.append(self._within(start, end, left, middle, first, 2 * key, depth + 1))
        if end > middle:
            parts.append(self._within(start, end, middle, right, whole - first, 2 * key + 1, depth + 1))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _normal(self, seed: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(self.shape, generator=generator, dtype=torch.float32)


class BrownianNoise:
    """Unit noise of intervals of σ, one path a picture; overlapping intervals share what they overlap in.

    Args:
        seeds: one a picture; a single one with a `shape` of four numbers is a path for a whole batch.
        shape: of one picture's noise: (c, h, w).
        low, high: the lowest noise level above 0 that is asked for, and the highest.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], low: float, high: float) -> None:
        self._trees = [BrownianTree(seed, shape, low, high) for seed in seeds]
        self._whole_batch = len(shape) > 3

    def __call__(self, sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        """The noise from σ to the next, [n, c, h, w] float32 on the CPU.

        Raises:
            ValueError: no interval.
        """
        if sigma is None or next_sigma is None:
            raise ValueError("Brownian noise is that of an interval; say from which sigma to which")
        start, end = sorted((sigma, next_sigma))
        scale = math.copysign(1.0 / math.sqrt(end - start), next_sigma - sigma)
        drawn = [tree.increment(start, end) * scale for tree in self._trees]
        return drawn[0] if self._whole_batch else torch.stack(drawn)
