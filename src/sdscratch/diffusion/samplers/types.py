"""What a sampler takes and gives.

All work in σ-space, x = x₀ + σ·noise, down a sequence of sigmas (Karras et al. 2022, section 2). Latents are
tensors [n, c, h, w] of any precision; coefficients are Python floats (float64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["Denoiser", "NoiseSource", "Sampler", "Step"]


class Denoiser(Protocol):
    """x [n, c, h, w] at noise level σ → the estimate of x₀ in it, of the same shape."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class NoiseSource(Protocol):
    """Unit noise [n, c, h, w] of the interval from one noise level to the next.

    Only a Brownian source depends on the interval; plain sources draw on, with or without one.
    """

    def __call__(self, sigma: float | None = None, next_sigma: float | None = None, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Step:
    """What a sampler reports after each step."""

    index: int  # counted from 0
    latent: Tensor  # x after the step, at noise level `sigma`
    denoised: Tensor  # the estimate of x₀ that the step began with
    sigma: float


# (denoise, x, sigmas, noise), and parameters by name: from a latent at `sigmas[0]` to one at the last sigma
Sampler = Callable[..., Iterator[Step]]
