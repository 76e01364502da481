"""From latents to pictures: by the decoder, or roughly and at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from sdscratch.checkpoints.taesd import TaesdFile
from sdscratch.generation.networks import Networks, dtype_of, trim
from sdscratch.generation.preview import fit_preview
from sdscratch.generation.tiles import decode_latent, tile_by_memory
from sdscratch.images.tensors import to_picture

__all__ = ["decode", "previewer"]


def decode(
    networks: Networks, latents: Tensor, tile: int | None = None, tiny: TaesdFile | None = None
) -> list[Image.Image]:
    """Latents [n, c, h, w] as the U-Net sees them → n pictures, one at a time (memory).

    Args:
        tile: decode in bands of as many pixels as a tile of this side has (`tiles`); 0: whole; None: by
            memory.
        tiny: what decodes in the place of the model's own decoder, which is an approximation.

    Raises:
        SdscratchError: not finite in float32 either; no black picture is ever given.
        DeviceError: out of memory.
    """
    config = networks.files.config.autoencoder
    if tile is None:
        size = latents.shape[3] * config.downscale, latents.shape[2] * config.downscale
        tile = tile_by_memory(size, config, networks.placement, low_memory=networks.low_memory)
    if not networks.placement.batches:
        trim(networks.placement.device)  # the decoder wants other pieces of memory than the U-Net

    if tiny is not None:
        networks.attach("taesd", tiny)
    name, scale = ("decoder", config.latent_scale) if tiny is None else ("taesd", 1.0)

    def decode_one(latent: Tensor) -> Image.Image:
        def run(network: Any) -> Tensor:
            cast = latent.to(networks.placement.device, dtype_of(network))
            return network(cast) if tiny is not None else decode_latent(network, cast, config, tile)

        return to_picture(networks.run(name, run))

    return [decode_one(latent) for latent in (latents / scale).split(1)]


def previewer(
    networks: Networks, taesd: TaesdFile | None, encode: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """What shows latents [n, c, h, w] as pixels: the tiny autoencoder, else a linear map fitted to them."""
    if taesd is None:
        return fit_preview(encode, networks.files.config.autoencoder.downscale)
    networks.attach("taesd", taesd)

    def show(latents: Tensor) -> Tensor:
        def run(network: Any) -> Tensor:
            return network(latents.to(networks.placement.device, dtype_of(network)))  # type: ignore[no-any-return]

        return networks.run("taesd", run)

    return show
