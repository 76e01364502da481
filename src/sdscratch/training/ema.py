"""A moving average of weights: what is trained wobbles, its average does not (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["EMA"]


class EMA:
    """average ← d · average + (1 − d) · weights, after every step.

    Args:
        decay: d, at most; in the first steps it is (1 + step) / (10 + step): the random start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights as they are after step `step` (0, 1, …)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self.module.state_dict().values())
        values = [value.detach() for value in module.state_dict().values()]
        torch._foreach_lerp_(averages, values, 1.0 - decay)
