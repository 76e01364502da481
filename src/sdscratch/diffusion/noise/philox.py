"""Normal numbers as an NVIDIA GPU draws them: Philox 4×32-10 and Box–Muller, on any machine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Philox"]

Words = npt.NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al. 2011, section 4.2
WEYL = (0x9E3779B9, 0xBB67AE85)

TURN = np.float64(np.float32(2.0 * math.pi * 2.0**-32))  # radians a unit, which CUDA keeps in float32


class Philox:
    """A generator of which every call, whatever its size, moves the counter by one (PyTorch on CUDA).

    Args:
        seed: 0 to 2⁶⁴ − 1.
    """

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        self._calls = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """The next normal numbers, float32 on the CPU."""
        count = math.prod(shape)
        zeros = np.zeros(count, dtype=np.uint32)
        counter = [zeros + np.uint32(self._calls), zeros, np.arange(count, dtype=np.uint32), zeros]
        self._calls += 1
        first, second = scrambled(counter, self._key)[:2]
        share = first * 2.0**-32 + 2.0**-33
        angle = second * TURN + TURN / 2.0
        normal = np.sqrt(-2.0 * np.log(share)) * np.sin(angle)
        return torch.from_numpy(normal.astype(np.float32).reshape(shape))


def scrambled(counter: list[Words], key: tuple[int, int]) -> list[Words]:
    """Ten rounds of Philox (Salmon et al. 2011, figure 3)."""
    words, keys = counter, key
    for index in range(ROUNDS):
        if index:
            keys = ((keys[0] + WEYL[0]) & 0xFFFFFFFF, (keys[1] + WEYL[1]) & 0xFFFFFFFF)
        (high0, low0), (high1, low1) = (
            halves(word, factor) for word, factor in zip((words[0], words[2]), MULTIPLIERS, strict=True)
        )
        words = [high1 ^ words[1] ^ np.uint32(keys[0]), low1, high0 ^ words[3] ^ np.uint32(keys[1]), low0]
    return words


def halves(words: Words, factor: int) -> tuple[Words, Words]:
    """The high and the low 32 bits of a product."""
    product = words.astype(np.uint64) * np.uint64(factor)
    return (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)
