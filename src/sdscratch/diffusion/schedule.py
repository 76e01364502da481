"""How noisy a latent is at every step: betas, sigmas, and timesteps.

Samplers work in σ-space, x = x₀ + σ·noise (Karras et al. 2022, section 2). Networks were trained on
variance-preserving latents, √ᾱ·x₀ + √(1−ᾱ)·noise (Ho et al. 2020, eq. 4): the same thing divided by
√(1+σ²), with σ² = (1−ᾱ)/ᾱ. Everything here is float64; this module imports no torch.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sdscratch.models.config import ScheduleConfig

__all__ = ["Array", "Schedule"]

Array = npt.NDArray[np.float64]

# ᾱ_T of a schedule with zero terminal SNR, whose σ would else have no end: the web UIs' and ComfyUI's.
LEAST_ALPHA_BAR = 4.8973451890853435e-08


class Schedule:
    """The forward process: how noisy the training latents were at each timestep.

    Attributes:
        betas: [T] variances of the noise added at each timestep (scaled linear: their roots are evenly
            spaced, as latent diffusion trains; Rombach et al. 2022).
        alphas_bar: [T] ᾱ_t = ∏(1−β), the share of the picture's variance left (Ho et al. 2020, section 2).
        sigmas: [T] σ_t = √((1−ᾱ_t)/ᾱ_t), rising.

    Args:
        zero_snr: √ᾱ is shifted and scaled so that nothing is left of the picture at the last timestep, and
            the first keeps its share (Lin et al. 2023, algorithm 1); by default as the configuration says.
        in_float32: ᾱ is rounded to float32, as A1111 keeps it; its σ₀ is 1.3e-5 above the others'.
    """

    def __init__(
        self, config: ScheduleConfig, *, zero_snr: bool | None = None, in_float32: bool = False
    ) -> None:
        zero_snr = config.zero_snr if zero_snr is None else zero_snr
        self._config, self.zero_snr = config, zero_snr
        low, high = math.sqrt(config.beta_start), math.sqrt(config.beta_end)
        self.betas: Array = np.linspace(low, high, config.timesteps) ** 2
        self.alphas_bar: Array = np.cumprod(1.0 - self.betas, dtype=np.float64)
        if in_float32:
            self.alphas_bar = self.alphas_bar.astype(np.float32).astype(np.float64)
        if zero_snr:
            # the web UIs rescale in float32 too, of which little is left at low noise levels
            kept = self.alphas_bar.astype(np.float32 if in_float32 else np.float64)
            self.alphas_bar = without_terminal_signal(kept).astype(np.float64)
        self.sigmas: Array = np.sqrt((1.0 - self.alphas_bar) / self.alphas_bar)
        self._log_sigmas = np.log(self.sigmas)
        self._timesteps = np.arange(config.timesteps, dtype=np.float64)

    def __len__(self) -> int:
        """T, the number of timesteps."""
        return len(self.sigmas)

    @cached_property
    def in_float32(self) -> Schedule:
        """The same with ᾱ in float32."""
        return Schedule(self._config, zero_snr=self.zero_snr, in_float32=True)

    def sigma(self, timestep: float | Array) -> Array:
        """σ at a timestep, 0 to T−1; between two of them log σ is interpolated, as k-diffusion does."""
        return np.exp(np.interp(timestep, self._timesteps, self._log_sigmas))

    def sigma_linear(self, timestep: float | Array) -> Array:
        """σ at a timestep, 0 to T−1; between two of them σ itself is interpolated, as diffusers does."""
        return np.asarray(np.interp(timestep, self._timesteps, self.sigmas))

    def timestep(self, sigma: float | Array) -> Array:
        """The inverse of `sigma`, fractional; both references use it. Beyond either end: that end."""
        return np.asarray(np.interp(np.log(sigma), self._log_sigmas, self._timesteps))

    def nearest_timestep(self, sigma: float | Array) -> Array:
        """The whole timestep whose log σ is nearest, as ComfyUI and Forge tell the network."""
        distances = np.abs(np.log(np.atleast_1d(sigma))[:, None] - self._log_sigmas)
        return np.asarray(distances.argmin(1), dtype=np.float64).reshape(np.shape(sigma))

    def sigma_at_share(self, share: float) -> float:
        """σ where so much of the sampling is done, 0 to 1, counted in timesteps (ComfyUI's percentages)."""
        if share <= 0.0:
            return math.inf
        return 0.0 if share >= 1.0 else float(self.sigma((1.0 - share) * (len(self) - 1)))


def without_terminal_signal(alphas_bar: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """ᾱ with zero terminal SNR, but for the last, which is left `LEAST_ALPHA_BAR`."""
    roots = np.sqrt(alphas_bar)
    first, last = roots[0], roots[-1]
    rescaled = ((roots - last) * (first / (first - last))) ** 2
    rescaled[-1] = LEAST_ALPHA_BAR
    return np.asarray(rescaled)
