"""Churn: noise added before a step, which samplers of ODEs take away again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdscratch.diffusion.samplers.types import NoiseSource

__all__ = ["Churn"]

MOST = math.sqrt(2.0) - 1.0  # of σ that one step adds: the variance at most doubles


@dataclass(frozen=True)
class Churn:
    """The stochasticity of Karras et al. 2022 (algorithm 2, lines 4 to 6).

    Args:
        steps: how many steps share `s_churn`.
        s_churn: the overall amount; 0 draws no noise at all.
        s_tmin, s_tmax: the noise levels between which there is any.
        s_noise: what the noise is multiplied by.
        spare_draws: draw at the other steps too, and throw it away. k-diffusion does, and so the web UIs;
            ComfyUI does not, and with the same seed makes another picture.
    """

    steps: int
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    spare_draws: bool | float = True

    def __call__(self, x: Tensor, sigma: float, noise: NoiseSource) -> tuple[Tensor, float]:
        """x at a higher noise level, and that level."""
        if self.s_churn <= 0.0:
            return x, sigma
        share = min(self.s_churn / self.steps, MOST) if self.s_tmin <= sigma <= self.s_tmax else 0.0
        drawn = noise() if share > 0.0 or self.spare_draws else None
        if drawn is None or share == 0.0:
            return x, sigma
        higher = sigma * (1.0 + share)
        return x + drawn * (self.s_noise * math.sqrt(higher**2 - sigma**2)), higher
