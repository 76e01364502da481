"""Autoencoders as files: of any model, or alone, as `train autoencoder` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.layouts import Part, Weight, weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.places import find_local
from sdscratch.checkpoints.writer import PROVENANCE, SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.errors import CheckpointError
from sdscratch.files import atomic_write
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig
from sdscratch.tensorfiles.reader import TensorFile, open_tensors
from sdscratch.training.tasks.autoencoder import Autoencoder

__all__ = ["AutoencoderFiles", "autoencoder_of", "open_autoencoder", "save_autoencoder"]

PREFIX, UNET = "first_stage_model.", "model.diffusion_model."
SHAPE = "sdscratch.autoencoder"  # the key of its shape in a file's metadata
PARTS: tuple[Part, ...] = ("encoder", "decoder")


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
        return network.eval().requires_grad_(False)

    def load_both(self, device: torch.device) -> Autoencoder:
        """Both halves, ready to be trained further."""
        with torch.device("meta"):
            both = Autoencoder(self.config)
        for part in PARTS:
            setattr(both, part, self.load(part, device))
        return both.requires_grad_(True)


def autoencoder_of(files: ModelFiles) -> AutoencoderFiles:
    """The autoencoder of a model."""
    return AutoencoderFiles(files.name, files.config.autoencoder, files.read, files)


def open_autoencoder(name: str) -> AutoencoderFiles:
    """The autoencoder in a model, or in a file that holds it alone (in LDM's names, with or without prefix).

    Raises:
        CheckpointError: missing, unreadable, or no autoencoder.
    """
    path = find_local(name)
    if path is None or path.is_dir():
        return autoencoder_of(open_model(name))
    file = open_tensors(path)
    if any(key.startswith(UNET) for key in file.tensors):
        return autoencoder_of(open_model(path))
    config = _shape(path, file)
    names = {w: _stored(file, w) for w in weights(ModelConfig(autoencoder=config)) if w.part in PARTS}
    for weight, stored in names.items():
        if stored is None or file.tensors[stored].shape not in (weight.shape, weight.ldm_shape):
            raise CheckpointError(
                f"{path} is no whole autoencoder: {weight.ldm} is missing or of another shape"
            )
    return AutoencoderFiles(
        path.stem, config, lambda weight: file.read(names[weight] or "").reshape(weight.shape), None
    )


def _stored(file: TensorFile, weight: Weight) -> str | None:
    names = (weight.ldm, weight.ldm.removeprefix(PREFIX))
    return next((name for name in names if name in file.tensors), None)


def _shape(path: Path, file: TensorFile) -> AutoencoderConfig:
    if SHAPE not in file.metadata:
        return SD1.autoencoder
    try:
        return ModelConfig.from_json(f'{{"autoencoder": {file.metadata[SHAPE]}}}').autoencoder
    except ValueError as error:
        raise CheckpointError(f"{path} has a broken {SHAPE} in its metadata: {error}") from None


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
