"""Where the denoising starts: from noise alone, or from a picture under noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdscratch.checkpoints.tiny_encoder import TinyEncoderFile
from sdscratch.diffusion.samplers import NoiseSource
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.generation.networks import Networks, dtype_of

__all__ = ["PictureEncoder", "TinyPictureEncoder", "device_noise", "start_latent"]

Draw = NoiseSource


class PictureEncoder:
    """Pictures → latents as the U-Net sees them; the newest picture is encoded once for all its batches."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._newest: tuple[Tensor, Tensor] | None = None  # a picture, and its posterior

    def __call__(self, picture: Tensor, noise: Draw | None) -> Tensor:
        """[1, 3, H, W] → latents [n, c, h, w]: samples of the posterior, or its mean without noise."""
        mean, log_variance = self._posterior(picture).chunk(2, dim=1)
        drawn = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise()
        return drawn * self.networks.files.config.autoencoder.latent_scale

    def clear(self) -> None:
        """Forget the newest picture."""
        self._newest = None

    def _posterior(self, picture: Tensor) -> Tensor:
        """Mean and log variance, one after the other in the channels."""

        def encode(network: Any) -> Tensor:
            posterior = network(picture.to(self.networks.placement.device, dtype_of(network)))
            return torch.cat([posterior.mean, posterior.log_variance], 1).float()

        if self._newest is None or not torch.equal(self._newest[0], picture):
            self._newest = picture, self.networks.run("encoder", encode)
            self.networks.done("encoder")
        return self._newest[1]


class TinyPictureEncoder:
    """The same by a tiny encoder, which knows no posterior: its latents are the same for all pictures."""

    def __init__(self, networks: Networks, file: TinyEncoderFile) -> None:
        self.networks = networks
        networks.attach("tiny_encoder", file)

    def __call__(self, picture: Tensor, noise: Draw | None) -> Tensor:
        """[1, 3, H, W] → latents [1, c, h, w]; no noise is drawn, as diffusers draws none for it."""

        def encode(network: Any) -> Tensor:
            return network(picture.to(self.networks.placement.device, dtype_of(network)))  # type: ignore[no-any-return]

        return self.networks.run("tiny_encoder", encode)


def device_noise(source: NoiseSource, device: torch.device) -> Draw:
    """What draws from the source onto a device."""

    def draw(sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        drawn = source(sigma, next_sigma)
        # from pinned memory, a GPU takes it without waiting for the steps before
        return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)

    return draw


def start_latent(
    path: SigmaSchedule,
    count: int,
    noise: Draw,
    encode: Callable[[Draw | None], Tensor] | None,
    *,
    sampled: bool = True,
) -> Tensor:
    """The latent [n, c, h, w] in σ-space that sampling starts from.

    Args:
        path: the noise levels still to come (`spacing.shortened`, where there is an init picture); of none,
            the picture's own latent is what there is.
        count: n, how many pictures.
        noise: unit noise for all of them.
        encode: the init picture's latents, sampled with this noise; None without an init picture.
        sampled: the picture's latent is drawn from its posterior with this noise; else it is the mean.
    """
    if encode is None:
        return noise() * path.start_scale
    if not path.timesteps:
        return encode(None).repeat(count, 1, 1, 1)
    latent = encode(noise if sampled else None)  # draws its noise before the sampler's, as diffusers does
    return latent * path.init_scale + noise() * path.start_scale
