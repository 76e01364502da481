"""Autoencoders as files: of any model, or alone, as `train autoencoder` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.addons.vae import SHAPE, VAE_PARTS, open_vae
from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.layouts import Part, Weight, weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.places import find_local
from sdscratch.checkpoints.writer import PROVENANCE, SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.fast.attention import swap_attention
from sdscratch.files import atomic_write
from sdscratch.models.config import AutoencoderConfig, ModelConfig
from sdscratch.tensorfiles.reader import open_tensors
from sdscratch.training.tasks.autoencoder import Autoencoder

__all__ = ["AutoencoderFiles", "autoencoder_of", "open_autoencoder", "save_autoencoder"]

UNET = "model.diffusion_model."


@dataclass(frozen=True)
class AutoencoderFiles:
    """An autoencoder of which nothing is in memory yet."""

    name: str
    config: AutoencoderConfig
    read: Callable[[Weight], Tensor]
    model: ModelFiles | None  # that it is a part of

    def load(self, part: Part, device: torch.device) -> nn.Module:
        """One half in float32, without gradients."""
        whole = ModelConfig(autoencoder=self.config)
        network = empty_network(part, whole)
        state = {w.name: self.read(w).to(device, torch.float32) for w in weights(whole) if w.part == part}
        network.load_state_dict(state, assign=True)
        swap_attention(network)
        return network.eval().requires_grad_(False)

    def load_both(self, device: torch.device) -> Autoencoder:
        """Both halves, ready to be trained further."""
        with torch.device("meta"):
            both = Autoencoder(self.config)
        for part in VAE_PARTS:
            setattr(both, part, self.load(part, device))
        return both.requires_grad_(True)


def autoencoder_of(files: ModelFiles) -> AutoencoderFiles:
    """The autoencoder of a model."""
    return AutoencoderFiles(files.name, files.config.autoencoder, files.read, files)


def open_autoencoder(name: str) -> AutoencoderFiles:
    """The autoencoder in a model, or in a file that holds it alone (in any form, `addons.vae`).

    Raises:
        CheckpointError: missing, unreadable, or no autoencoder.
    """
    path = find_local(name)
    if path is None or path.is_dir():
        return autoencoder_of(open_model(name))
    if any(key.startswith(UNET) for key in open_tensors(path).tensors):
        return autoencoder_of(open_model(path))
    vae = open_vae(str(path))
    return AutoencoderFiles(vae.name, vae.config, vae.read, None)


def save_autoencoder(
    path: Path, model: Autoencoder, dtype: torch.dtype, provenance: Mapping[str, Any]
) -> None:
    """Write an autoencoder alone, in LDM's names.

    Raises:
        SdscratchError: the operating system refuses.
    """
    states = {"encoder": model.encoder.state_dict(), "decoder": model.decoder.state_dict()}
    entries = [
        Entry(w.ldm, SAFETENSORS_NAMES[dtype], w.ldm_shape, _reader(states[w.part][w.name]))
        for w in weights(ModelConfig(autoencoder=model.config))
        if w.part in states
    ]
    metadata = {
        "format": "pt",
        SHAPE: json.dumps(asdict(model.config), sort_keys=True),
        PROVENANCE: json.dumps(provenance, sort_keys=True),
    }
    with atomic_write(path, overwrite=True) as file:
        write_safetensors(file, entries, metadata, lambda _: None)


def _reader(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor.detach().cpu()
