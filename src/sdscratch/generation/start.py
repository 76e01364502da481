"""Where the denoising starts: from noise alone, or from a picture under noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdscratch.checkpoints.tiny_encoder import TinyEncoderFile
from sdscratch.diffusion.samplers import NoiseSource
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.generation.tiles import encode_picture, tile_by_memory
from sdscratch.hardware import device_kind
from sdscratch.options import ResolvedOptions, check_resize

__all__ = [
    "Draw",
    "Encoder",
    "PictureEncoder",
    "Start",
    "TinyPictureEncoder",
    "device_noise",
    "start_latent",
    "together",
    "varied_noise",
]

Draw = NoiseSource
Start = Callable[[Draw | None], Tensor]  # gives a latent [1|n, c, h, w]: sampled with this noise, or the mean


KEPT = 2  # a picture, and the same with a part of it masked


class Encoder(Protocol):
    """Pictures → latents as the U-Net sees them."""

    networks: Networks

    def __call__(self, picture: Tensor, noise: Draw | None) -> Tensor:
        """[1, 3, H, W] → latents [1|n, c, h, w]: samples of the posterior, or its mean without noise."""
        ...

    def mean(self, picture: Tensor) -> Tensor:
        """[1, 3, H, W] → [1, c, h, w], the posterior's mean as the autoencoder has it, not scaled."""
        ...

    def ahead(self, *pictures: Tensor) -> None:
        """Encode pictures [1, 3, H, W] that will be asked for, at most `KEPT`, in one loading."""
        ...


class PictureEncoder:
    """Pictures → latents as the U-Net sees them; the newest are encoded once for all their batches.

    Args:
        tile: encode in bands of as many pixels as a tile of this side has (`tiles`); 0: whole; None: by
            memory.
    """

    def __init__(self, networks: Networks, tile: int | None = None) -> None:
        self.networks, self.tile = networks, tile
        # pictures, the axes along which they tile, and their posteriors; the newest last
        self._newest: list[tuple[Tensor, str, Tensor]] = []

    def tiled(self, tile: int) -> Encoder:
        """The same, which knows the same pictures, with another tile."""
        other = PictureEncoder(self.networks, tile)
        other._newest = self._newest
        return other

    def __call__(self, picture: Tensor, noise: Draw | None) -> Tensor:
        """[1, 3, H, W] → latents [n, c, h, w]: samples of the posterior, or its mean without noise."""
        mean, log_variance = self._posterior(picture).chunk(2, dim=1)
        drawn = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise()
        return drawn * self.networks.files.config.autoencoder.latent_scale

    def mean(self, picture: Tensor) -> Tensor:
        """[1, 3, H, W] → [1, c, h, w], the posterior's mean as the autoencoder has it, not scaled."""
        return self._posterior(picture).chunk(2, dim=1)[0]

    def clear(self) -> None:
        """Forget the newest pictures."""
        self._newest.clear()

    def ahead(self, *pictures: Tensor) -> None:
        """Encode pictures [1, 3, H, W] that will be asked for, at most `KEPT`, in one loading."""
        new = [picture for picture in pictures if self._known(picture) is None]
        for picture in new:
            self._newest.append((picture, self.networks.seamless, self._encoded(picture)))
            del self._newest[:-KEPT]
        if new:
            self.networks.done("encoder")

    def _posterior(self, picture: Tensor) -> Tensor:
        """Mean and log variance, one after the other in the channels."""
        self.ahead(picture)
        known = self._known(picture)
        assert known is not None
        return known

    def _known(self, picture: Tensor) -> Tensor | None:
        axes = self.networks.seamless
        alike = (known for one, tiles, known in self._newest if tiles == axes and torch.equal(one, picture))
        return next(alike, None)

    def _encoded(self, picture: Tensor) -> Tensor:
        networks, config = self.networks, self.networks.files.config.autoencoder
        size, tile = (picture.shape[3], picture.shape[2]), self.tile
        if tile is None:
            tile = tile_by_memory(size, config, networks.placement, low_memory=networks.low_memory)

        def encode(network: Any) -> Tensor:
            pixels = picture.to(networks.placement.device, dtype_of(network))
            posterior = encode_picture(network, pixels, config, tile)
            return torch.cat([posterior.mean, posterior.log_variance], 1).float()

        return networks.run("encoder", encode)


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

    def mean(self, picture: Tensor) -> Tensor:
        """[1, 3, H, W] → [1, c, h, w] on the scale of the autoencoder's own."""
        return self(picture, None) / self.networks.files.config.autoencoder.latent_scale

    def ahead(self, *pictures: Tensor) -> None:
        """Nothing: it is small, and stays loaded."""


def device_noise(source: NoiseSource, device: torch.device) -> Draw:
    """What draws from the source onto a device."""

    def draw(sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        drawn = source(sigma, next_sigma)
        if device_kind(device) != "cuda":
            return drawn.to(device)
        return drawn.pin_memory().to(device, non_blocking=True)  # without waiting for the steps before

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
