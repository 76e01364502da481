"""Latents larger than a model draws, denoised in windows that overlap and are blended at every step.

MultiDiffusion (Bar-Tal et al. 2023, section 3): the estimate of the whole is, position by position, the mean
of the windows' estimates. Weights here fall off towards a window's edges, as in Mixture of Diffusers (Barbero
Jiménez 2023, section 3.2), so that no edge shows; that the whole is sampled as one keeps windows in accord.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from sdscratch.diffusion.samplers import Denoiser
from sdscratch.models.conditioning import Conditioning

__all__ = ["Keep", "Window", "Windowed", "cropped", "windows_of"]

OVERLAP = 4  # neighbours share a part in so many of their side, at least


@dataclass(frozen=True)
class Window:
    """A part of a latent of height × width positions."""

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]

    def of(self, x: Tensor) -> Tensor:
        """The same part of any [n, c, h, w] that covers the whole, whatever its own resolution."""
        down, right = (side / whole for side, whole in zip(x.shape[2:], self.whole, strict=True))
        top, left = round(self.top * down), round(self.left * right)
        height, width = round(self.height * down), round(self.width * right)
        return x[:, :, top : top + height, left : left + width]


class Keep(Protocol):
    """What remembers windows' estimates, so that a run that was stopped goes on."""

    def __call__(self, x: Tensor, compute: Callable[[Tensor], Tensor], /) -> Tensor:
        """compute(x), or what it gave when it was asked before."""
        ...


def windows_of(height: int, width: int, side: int) -> list[Window]:
    """Windows of a latent, row by row; along each axis evenly spaced, and as few as overlap enough."""
    rows, columns = _starts(height, side), _starts(width, side)
    return [
        Window(top, left, min(side, height), min(side, width), (height, width))
        for top, left in product(rows, columns)
    ]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    step = side - side // OVERLAP
    count = -(-(length - side) // step)
    return [round(index * (length - side) / count) for index in range(count + 1)]


class Windowed:
    """A denoiser of the whole, out of one of windows.

    Args:
        denoise: estimates x₀ in windows [1, c, h, w].
        side: of a window, in latent positions.
        begin: told of each window before its estimate is asked for.
        keep: remembers estimates.
    """

    def __init__(
        self,
        denoise: Denoiser,
        side: int,
        begin: Callable[[Window], None] = lambda window: None,
        keep: Keep | None = None,
    ) -> None:
        self.denoise, self.side, self.begin = denoise, side, begin
        self.keep = keep

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The blended estimates of x₀."""
        return self._blended(self.denoise, x, sigma)

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The same without the prompt."""
        return self._blended(getattr(self.denoise, "unconditional", self.denoise), x, sigma)

    def _blended(self, denoise: Denoiser, x: Tensor, sigma: float) -> Tensor:
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        for window in windows_of(x.shape[2], x.shape[3], self.side):
            self.begin(window)

            def compute(part: Tensor) -> Tensor:
                return denoise(part, sigma)

            part = window.of(x).contiguous()
            estimate = compute(part) if self.keep is None else self.keep(part, compute)
            fade = _ramp(window.height, x)[:, None] * _ramp(window.width, x)
            window.of(total).add_(estimate * fade)
            window.of(weights).add_(fade)
        return total / weights


def _ramp(length: int, like: Tensor) -> Tensor:
    """Weights along one axis: rising, and falling again."""
    places = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(places, places.flip(0)) / length


def cropped(told: Conditioning, window: Window | None) -> Conditioning:
    """What a U-Net is told of a window: channels beside the latent, and hints of controls, are cut to it.

    Whatever has the whole's shape, at the latent's resolution or a lower or higher one, is cut.
    """
    if window is None:
        return told

    def cut(x: Tensor | None) -> Tensor | None:
        return window.of(x) if x is not None and _covers(x, window) else x

    controls = tuple(
        control.with_tensors([cut(tensor) for tensor in control.tensors])  # type: ignore[misc]
        for control in told.controls
    )
    return replace(told, concat=cut(told.concat), controls=controls)


def _covers(x: Tensor, window: Window) -> bool:
    """Whether a tensor has a value for every part of the whole: [n, c, h·k, w·k]."""
    if x.dim() != 4:
        return False
    return abs(x.shape[2] * window.whole[1] - x.shape[3] * window.whole[0]) < max(window.whole)
