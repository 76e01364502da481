"""Inpainting: what lies outside the mask is put back while the rest is denoised.

Three ways, each an ordinary denoiser around another. A sampler's arithmetic is position by position, so that
what is put back before the network looks need not be put back into the sampler's own latent as well.
Shapes: n pictures, c channels, h × w positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sdscratch.diffusion.guidance import Pull
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.models.conditioning import Conditioning

__all__ = ["Blended", "Blending", "Surroundings", "instructed", "soft_mask", "with_channels"]

# Where the surroundings are put back: into estimates of x₀ (A1111's web UI), into these and, under noise,
# into what the network sees (ComfyUI), or under noise alone (diffusers' after every step)
Blending = Literal["estimates", "both", "steps"]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A picture, of which the mask's part is repainted.

    Attributes:
        mask: [1, 1, h, w], 1 where it is repainted, 0 where it stays; between, as much.
        latent: [1|n, c, h, w], the picture.
        noise: [n, c, h, w], the unit noise that the sampling started from.
    """

    mask: Tensor
    latent: Tensor
    noise: Tensor

    def around(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The picture's latent around the mask's part of x."""
        mask = self.mask if mask is None else mask
        return x * mask + self.latent * (1.0 - mask)

    def around_noisy(self, x: Tensor, sigma: float, mask: Tensor | None = None) -> Tensor:
        """The same at noise level σ."""
        mask = self.mask if mask is None else mask
        return x * mask + (self.latent + sigma * self.noise) * (1.0 - mask)


class Blended:
    """A denoiser that keeps the surroundings; it tells the estimate without the prompt, too.

    Args:
        mask_at: the mask [1, 1, h, w] at a noise level, where it is not the same at all (`soft_mask`).
    """

    def __init__(
        self,
        denoise: Denoiser,
        surroundings: Surroundings,
        blending: Blending,
        mask_at: Callable[[float], Tensor] | None = None,
    ) -> None:
        self._denoise, self._kept, self._blending = denoise, surroundings, blending
        self._mask_at = mask_at or (lambda sigma: surroundings.mask)
        self._newest: tuple[Tensor, Tensor] | None = None  # x, and what the network saw of it
        self._begun = False

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate of x₀ with the surroundings as they are."""
        seen = x
        if self._blending == "both" or (self._blending == "steps" and self._begun):
            # diffusers' first evaluation sees the start as it is, which at strength 1 is noise alone
            seen = self._kept.around_noisy(x, sigma, self._mask_at(sigma))
        self._begun = True
        self._newest = x, seen
        return self._blended(self._denoise(seen, sigma), sigma)

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate without the prompt, likewise; of the newest x at no cost."""
        seen = self._newest[1] if self._newest is not None and self._newest[0] is x else x
        without = getattr(self._denoise, "unconditional", self._denoise)
        return self._blended(without(seen, sigma), sigma)

    def _blended(self, estimate: Tensor, sigma: float) -> Tensor:
        if self._blending == "steps":
            return estimate
        return self._kept.around(estimate, self._mask_at(sigma))


def soft_mask(mask: Tensor, path: SigmaSchedule) -> Callable[[float], Tensor]:
    """A soft mask as strength per pixel (Levin & Fried 2023, differential diffusion).

    A position of strength m is repainted as soon as so much of the way is left: m ≥ (t − t₁)/(t₀ − t₁), of
    timesteps (ComfyUI's form of it). Positions of strength 0 are never.

    Args:
        mask: [1, 1, h, w] from 0 to 1.
    """
    first, last = path.timesteps[0], path.timesteps[-1]

    def at(sigma: float) -> Tensor:
        left = (path.timestep(sigma) - last) / (first - last) if first > last else 0.0
        return ((mask > 0.0) & (mask >= left)).to(mask)

    return at


def with_channels(told: Conditioning, concat: Tensor | None) -> Conditioning:
    """A conditioning with channels [1|n, k, h, w] beside the latent's."""
    return told if concat is None else replace(told, concat=concat)


def instructed(
    prompts: Sequence[Pull], negative: Conditioning, picture: Tensor, scale: float, picture_scale: float
) -> tuple[list[Pull], Conditioning]:
    """What pulls at a picture that is changed as told, at a guidance scale of 1 (Brooks et al. 2023, eq. 3).

    e(∅,∅) + s_I·(e(I,∅) − e(∅,∅)) + s_T·(e(I,T) − e(I,∅)) is e(∅,∅) + (s_I − s_T)·(e(I,∅) − e(∅,∅)) +
    s_T·(e(I,T) − e(∅,∅)): two pulls away from what is predicted with neither.

    Args:
        prompts: the instruction; or several, joined by AND.
        negative: the negative prompt, without channels beside the latent's.
        picture: [1|n, c, h, w], the picture's latent.
        scale: s_T, how closely to follow the instruction.
        picture_scale: s_I, how closely to follow the picture.

    Returns:
        The pulls, and what is told with neither.
    """
    with_picture = [Pull(with_channels(each.prompt, picture), scale * each.weight) for each in prompts]
    rest = picture_scale - scale * sum(each.weight for each in prompts)
    alone = Pull(with_channels(negative, picture), rest)
    return [*with_picture, alone], with_channels(negative, torch.zeros_like(picture))
