"""Where the denoising starts: from noise alone, or from a picture under noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdscratch.checkpoints.tiny_encoder import TinyEncoderFile
from sdscratch.diffusion.samplers import NoiseSource
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.generation.tiles import encode_picture, tile_by_memory
from sdscratch.options import ResolvedOptions, check_resize

__all__ = [
    "Draw",
    "Encode",
    "PictureEncoder",
    "Start",
    "TinyPictureEncoder",
    "device_noise",
    "start_latent",
    "together",
    "varied_noise",
]

Draw = NoiseSource
Encode = Callable[[Tensor, Draw | None], Tensor]  # a picture, and noise or none → latents
Start = Callable[[Draw | None], Tensor]  # gives a latent [1|n, c, h, w]: sampled with this noise, or the mean


class PictureEncoder:
    """Pictures → latents as the U-Net sees them; the newest picture is encoded once for all its batches."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._newest: tuple[Tensor, str, Tensor] | None = None  # a picture, how it tiles, its posterior

    def __call__(self, picture: Tensor, noise: Draw | None, tile: int | None = None) -> Tensor:
        """[1, 3, H, W] → latents [n, c, h, w]: samples of the posterior, or its mean without noise.

        Args:
            tile: encode in bands of as many pixels as a tile of this side has (`tiles`); 0: whole; None: by
                memory.
        """
        mean, log_variance = self._posterior(picture, tile).chunk(2, dim=1)
        drawn = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise()
        return drawn * self.networks.files.config.autoencoder.latent_scale

    def clear(self) -> None:
        """Forget the newest picture."""
        self._newest = None

    def _posterior(self, picture: Tensor, tile: int | None) -> Tensor:
        """Mean and log variance, one after the other in the channels."""
        networks = self.networks
        config, axes = networks.files.config.autoencoder, networks.seamless
        if tile is None:
            size = picture.shape[3], picture.shape[2]
            tile = tile_by_memory(size, config, networks.placement, low_memory=networks.low_memory)

        def encode(network: Any) -> Tensor:
            pixels = picture.to(networks.placement.device, dtype_of(network))
            posterior = encode_picture(network, pixels, config, tile)
            return torch.cat([posterior.mean, posterior.log_variance], 1).float()

        newest = self._newest
        if newest is None or newest[1] != axes or not torch.equal(newest[0], picture):
            newest = self._newest = picture, axes, networks.run("encoder", encode)
            networks.done("encoder")
        return newest[2]


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


def varied_noise(options: ResolvedOptions, variations: Sequence[int], downscale: int) -> dict[str, Any]:
    """How the noise of pictures is varied, as `Noise` takes it; nothing where it is not.

    Args:
        variations: a seed a picture.
        downscale: pixels of a latent's position along each side.
    """
    told: dict[str, Any] = {}
    if options.variation_strength:
        told |= {"variation_seeds": variations, "variation_strength": options.variation_strength}
    if options.ensd:
        told["ensd"] = options.ensd
    if options.seed_resize is not None:
        width, height = check_resize(options.seed_resize)
        told["resize_from"] = (height // downscale, width // downscale)
    return told


def start_latent(
    path: SigmaSchedule,
    count: int,
    noise: Draw,
    encode: Start | None,
    *,
    posterior: Draw | None,
) -> Tensor:
    """The latent [n, c, h, w] in σ-space that sampling starts from.

    Args:
        path: the noise levels still to come (`spacing.shortened`, where there is an init picture); of none,
            the picture's own latent is what there is.
        count: n, how many pictures.
        noise: unit noise for all of them.
        encode: the init picture's latents, sampled with this noise; None without an init picture.
        posterior: what the picture's latent is drawn from its posterior with; None: it is the mean.
    """
    if encode is None:
        return noise() * path.start_scale
    if not path.timesteps:
        return encode(None).repeat(count, 1, 1, 1)
    latent = encode(posterior)  # draws its noise before the sampler's, as diffusers does
    return latent * path.init_scale + noise() * path.start_scale


def together(starts: Sequence[Start]) -> Start:
    """Pictures' own starts as one of all of them; noise is drawn for all at once, if for one."""

    def encode(noise: Draw | None) -> Tensor:
        drawn: list[Tensor] = []

        def of(index: int) -> Draw:
            def draw(sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
                assert noise is not None
                if not drawn:
                    drawn.append(noise())
                return drawn[0][index : index + 1]

            return draw

        draws = [None if noise is None else of(index) for index in range(len(starts))]
        return torch.cat([start(draw) for start, draw in zip(starts, draws, strict=True)])

    return encode
