"""Teaching a tiny decoder what a model's own decoder shows (Hinton et al. 2015), and keeping it in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.taesd import tensor_names
from sdscratch.checkpoints.writer import PROVENANCE, SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.files import atomic_write
from sdscratch.models.config import AutoencoderConfig, TinyDecoderConfig
from sdscratch.models.taesd import TinyDecoder
from sdscratch.models.vae import Gaussian
from sdscratch.training.dataset.source import LatentSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.tasks.autoencoder import LOSS_WEIGHTS, Reconstruction, weighted_sum

__all__ = ["DistillationLoss", "save_taesd", "tiny_config"]

BLOCKS = 3  # at each resolution but the highest, which has one: TAESD's
# No encoder is trained, so nothing pulls latents anywhere.
WEIGHTS = {name: weight for name, weight in LOSS_WEIGHTS.items() if name != "kl"}


def tiny_config(autoencoder: AutoencoderConfig, channels: int) -> TinyDecoderConfig:
    """The shape of a tiny decoder for an autoencoder's latents."""
    doublings = len(autoencoder.multipliers) - 1
    return TinyDecoderConfig(autoencoder.latent_channels, channels, (*[BLOCKS] * doublings, 1))


class DistillationLoss:
    """How far a `TinyDecoder` is from the decoder, at some indices of a step's batch: a `Loss`.

    Args:
        show: latents [n, c, h, w], as the U-Net sees them → what the model's own decoder shows.
    """

    def __init__(
        self, latents: LatentSource, show: Callable[[Tensor], Tensor], distributed: DistributedContext
    ) -> None:
        self.latents, self.show, self.distributed = latents, show, distributed

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        """The weighted sum of the terms, and each of them."""
        latents = self.latents(step, indices).values
        with self.distributed.autocast():
            with torch.no_grad():
                shown = self.show(latents)
            output = module(latents)
        known = Gaussian(latents, torch.zeros_like(latents))  # nothing is asked of it
        made = Reconstruction(output.float(), shown.float().clamp(-1.0, 1.0), known)
        return weighted_sum(made, WEIGHTS)


def save_taesd(
    path: Path,
    config: TinyDecoderConfig,
    network: TinyDecoder,
    dtype: torch.dtype,
    provenance: Mapping[str, Any],
) -> None:
    """Write a tiny decoder alone, in the names of TAESD's own decoder files.

    Raises:
        SdscratchError: the operating system refuses.
    """
    state = network.state_dict()
    entries = [
        Entry(theirs, SAFETENSORS_NAMES[dtype], tuple(state[ours].shape), state[ours].detach().cpu)
        for ours, theirs in tensor_names(config.blocks).items()
    ]
    metadata = {"format": "pt", PROVENANCE: json.dumps(provenance, sort_keys=True)}
    with atomic_write(path, overwrite=True) as file:
        write_safetensors(file, entries, metadata, lambda _: None)
