"""Gaussian blurs and Canny's edges on arrays of pixels, as OpenCV computes them. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["canny", "gaussian"]

Floats = NDArray[Any]
Whole = NDArray[np.int64]

# tan 22.5° in OpenCV's fixed point, which decides in which of four directions a gradient points
SHIFT = 15
TANGENT = int(0.4142135623730950488 * (1 << SHIFT) + 0.5)


def gaussian(pixels: Floats, sigma: float, reach: float) -> Floats:
    """A picture blurred by a Gaussian, its borders mirrored.

    Args:
        pixels: [height, width, channels] float32.
        sigma: in pixels.
        reach: of the kernel to either side, in σ; OpenCV's is 3 for 8-bit pictures and 4 for others.
    """
    size = round(sigma * reach * 2 + 1) | 1
    positions = np.arange(size) - size // 2
    kernel = np.exp(-(positions**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        pixels = _along(pixels, kernel.astype(np.float32), axis)
    return pixels


def _along(pixels: Floats, kernel: Floats, axis: int) -> Floats:
    reach, length = len(kernel) // 2, pixels.shape[axis]
    last = length - 1
    at = np.arange(-reach, length + reach)
    at = np.abs((at + last) % (2 * last) - last) if last else at * 0  # mirrored as often as it takes
    mirrored = np.take(pixels, at, axis=axis)
    total = np.zeros_like(pixels)
    for offset, share in enumerate(kernel):
        total += share * np.take(mirrored, np.arange(offset, offset + length), axis=axis)
    return total


def canny(pixels: NDArray[np.uint8], low: float, high: float) -> NDArray[np.bool_]:
    """Edges (Canny 1986): ridges of the gradient above `high`, and those above `low` that touch them.

    The gradient is Sobel's of 3×3, |∂x| + |∂y|, of the channel in which that is greatest.

    Args:
        pixels: [height, width, channels].

    Returns:
        [height, width].
    """
    low, high = sorted((low, high))
    across, down = _gradient(pixels)
    strength = np.pad(np.abs(across) + np.abs(down), 1)
    ridge = _ridges(across, down, strength)
    own = strength[1:-1, 1:-1]
    return _connected(ridge & (own > high), ridge & (own > low))


def _gradient(pixels: NDArray[np.uint8]) -> tuple[Whole, Whole]:
    """Sobel's derivatives in x and y, of each pixel's strongest channel; borders repeated."""
    levels = np.pad(pixels.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = levels[:-2] + 2 * levels[1:-1] + levels[2:]
    columns = levels[:, :-2] + 2 * levels[:, 1:-1] + levels[:, 2:]
    across, down = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
    strongest = (np.abs(across) + np.abs(down)).argmax(axis=2)[..., None]
    return (
        np.take_along_axis(across, strongest, axis=2)[..., 0],
        np.take_along_axis(down, strongest, axis=2)[..., 0],
    )


def _ridges(across: Whole, down: Whole, strength: Whole) -> NDArray[np.bool_]:
    """Where no neighbour in the gradient's direction is stronger; `strength` has a border of one."""

    def beside(y: int, x: int) -> Whole:
        height, width = across.shape
        return strength[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    own = beside(0, 0)
    flat, steep = np.abs(across) * TANGENT, np.abs(down) << SHIFT
    level = steep < flat
    upright = steep > flat + (np.abs(across) << (SHIFT + 1))
    horizontal = (own > beside(0, -1)) & (own >= beside(0, 1))
    vertical = (own > beside(-1, 0)) & (own >= beside(1, 0))
    falling = (own > beside(-1, -1)) & (own > beside(1, 1))
    rising = (own > beside(-1, 1)) & (own > beside(1, -1))
    diagonal = np.where((across ^ down) < 0, rising, falling)
    found: NDArray[np.bool_] = np.where(level, horizontal, np.where(upright, vertical, diagonal))
    return found


def _connected(seeds: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of `allowed` is reached from the seeds, over eight neighbours."""
    reached, free = np.pad(seeds, 1), np.pad(allowed & ~seeds, 1)
    width = reached.shape[1]
    around = np.array([y * width + x for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    flat, open_ = reached.reshape(-1), free.reshape(-1)
    front = np.flatnonzero(flat)
    while front.size:
        front = np.unique((front[:, None] + around).ravel())
        front = front[open_[front]]
        flat[front], open_[front] = True, False
    return reached[1:-1, 1:-1]
