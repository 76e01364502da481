"""A moving average of weights: what is trained wobbles, its average does not (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["EMA"]


class EMA:
    """average ← d · average + (1 − d) · weights, after every step; of what is trained, and of nothing else.

    Args:
        decay: d, at most; in the first steps it is (1 + step) / (10 + step): the random start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.averages = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after step `step` (0, 1, …)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module has the averages for weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for index, weight in enumerate(self.weights):
            weight.data, self.averages[index] = self.averages[index], weight.data
