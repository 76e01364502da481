"""What a sampler takes and gives.

All work in σ-space, x = x₀ + σ·noise, down a sequence of sigmas (Karras et al. 2022, section 2). Latents are
tensors [n, c, h, w] of any precision; coefficients are Python floats (float64).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Denoiser", "NoiseSource", "Sampler", "Step"]


class Denoiser(Protocol):
    """x [n, c, h, w] at noise level σ → the estimate of x₀ in it, of the same shape."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class NoiseSource(Protocol):
    """Unit noise [n, c, h, w] of the interval from one noise level to the next.

    Only a Brownian source depends on the interval; plain sources draw on, with or without one.
    """

    def __call__(self, sigma: float = ..., next_sigma: float = ..., /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Step:
    """What a sampler reports after each step."""

    index: int  # counted from 0
    latent: Tensor  # x after the step, at noise level `sigma`
    denoised: Tensor  # the estimate of x₀ that the step began with
    sigma: float


class Sampler(Protocol):
    """From a latent at `sigmas[0]` to one at the last sigma, a `Step` at a time; parameters by name."""

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: NoiseSource, /, **parameters: Any
    ) -> Iterator[Step]: ...
