"""Which pictures are encoded and decoded by bands (`fast.bands`), and how large these are.

It is a matter of memory alone: the picture is the same, to rounding. So the choice follows from the picture's
size and the machine's memory, not from what happens to be free, and a picture is drawn again as it was.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from sdscratch.device import Placement
from sdscratch.fast.bands import decode_in_bands, encode_in_bands
from sdscratch.hardware import device_kind
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Gaussian
from sdscratch.options import LOW_MEMORY_TILE

__all__ = ["decode_latent", "encode_picture", "tile_by_memory"]

# What an autoencoder needs at its largest as a whole: so many numbers a pixel and channel of its last level.
AT_ONCE = 6
SHARE = 4  # of a machine's memory, one part in so many may be taken


def tile_by_memory(
    size: tuple[int, int], config: AutoencoderConfig, placement: Placement, *, low_memory: bool = False
) -> int:
    """The tile for a picture of (width, height): 0, the whole, where memory is plenty for that."""
    if low_memory:
        return LOW_MEMORY_TILE if max(size) > LOW_MEMORY_TILE else 0
    channels = config.channels * config.multipliers[0]
    need = size[0] * size[1] * channels * AT_ONCE * placement.dtype.itemsize
    return LOW_MEMORY_TILE if need > memory_of(placement.device) // SHARE else 0


def memory_of(device: torch.device) -> int:
    """Bytes that a device has, used or not."""
    if device_kind(device) == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return 2**34


def decode_latent(network: Any, latent: Tensor, config: AutoencoderConfig, tile: int) -> Tensor:
    """A latent [1, c, h, w] decoded in bands of as many pixels as a tile of this side has; 0: whole."""
    whole = not tile or max(latent.shape[2:]) * config.downscale <= tile
    result: Tensor = network(latent) if whole else decode_in_bands(network, latent, _budget(config, tile))
    return result


def encode_picture(network: Any, picture: Tensor, config: AutoencoderConfig, tile: int) -> Gaussian:
    """A picture [1, 3, H, W] encoded likewise."""
    whole = not tile or max(picture.shape[2:]) <= tile
    result: Gaussian = network(picture) if whole else encode_in_bands(network, picture, _budget(config, tile))
    return result


def _budget(config: AutoencoderConfig, tile: int) -> int:
    """Numbers in a tile's features where they are the most: at the last level."""
    return tile**2 * config.channels * config.multipliers[0]
