"""The built-in model: its shape, its tokenizer, and the file it becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sdscratch.checkpoints.layouts import Part
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.writer import save_model
from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write
from sdscratch.models.config import (
    AutoencoderConfig,
    ModelConfig,
    TextEncoderConfig,
    UNetConfig,
)
from sdscratch.options import Defaults
from sdscratch.pictograms.composer import Composer
from sdscratch.text.tokenizer import Tokenizer, learn_merges
from sdscratch.training.tasks.architectures import NOISY_END, fitted
from sdscratch.training.tasks.autoencoder import Autoencoder
from sdscratch.training.tasks.diffusion import Diffusion

__all__ = [
    "LARGE",
    "SHAPES",
    "SMALL",
    "Shape",
    "keep_tokenizer",
    "learn_tokenizer",
    "load_autoencoder",
    "load_tokenizer",
    "model_config",
    "open_trained",
    "save_autoencoder",
    "save_embedded",
    "save_tokenizer",
]

PROMPT_LENGTH = 32  # tokens
MERGES = 1100
CAPTIONS_READ = 40_000  # by the tokenizer


@dataclass(frozen=True)
class Shape:
    """What the model is at one size of its pictures: trained at the least first, then grown (see `grow`)."""

    size: int  # of its pictures, in pixels
    autoencoder: AutoencoderConfig

    @property
    def defaults(self) -> Defaults:
        """What its file says of how to use it."""
        return Defaults(
            width=self.size,
            height=self.size,
            steps=20,
            cfg_scale=2.5,
            sampler="dpm++2m",
            scheduler="trailing",
        )


SMALL = Shape(
    size=64,
    autoencoder=AutoencoderConfig(
        channels=24,
        multipliers=(1, 2, 4),
        residual_blocks=1,
        latent_scale=1.0,  # the normalisation of latents is folded into the weights around them
        norm_groups=8,
    ),
)
LARGE = Shape(size=128, autoencoder=replace(SMALL.autoencoder, multipliers=(1, 1, 2, 4), latent_channels=8))
SHAPES = {shape.size: shape for shape in (SMALL, LARGE)}


# What is the same at every size; `fitted` makes room for a size's latents and for the tokenizer's ids.
NETWORKS = ModelConfig(
    text=TextEncoderConfig(width=192, layers=3, heads=4, feed_forward=768),
    unet=UNetConfig(
        channels=64,
        multipliers=(1, 2, 4),
        attends=(False, True, True),
        residual_blocks=1,
        heads=4,
        context=192,
    ),
    schedule=NOISY_END,
)


def model_config(tokenizer: Tokenizer, shape: Shape = LARGE) -> ModelConfig:
    """The whole model's shape; the text encoder has a row for each of the tokenizer's ids."""
    return fitted(NETWORKS, shape.autoencoder, tokenizer)


def learn_tokenizer(composer: Composer) -> Tokenizer:
    """A small tokenizer in CLIP's form, learnt from captions; always the same for the same captions."""
    captions = (composer.caption(0, index, 0) for index in range(CAPTIONS_READ))
    return Tokenizer.from_merges(learn_merges(captions, MERGES), length=PROMPT_LENGTH)


def keep_tokenizer(path: Path, composer: Composer) -> Tokenizer:
    """The tokenizer that a run began with, from `path`; learnt and kept there by a new run.

    Its ids are the text encoder's rows: a resumed run must not learn it anew from captions that changed.
    """
    if not path.is_file():
        save_tokenizer(path, learn_tokenizer(composer))
    return load_tokenizer(path)


def save_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Keep a run's tokenizer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, overwrite=True) as file:
        file.write(tokenizer.to_json().encode())


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a run.

    Raises:
        SdscratchError: it is not there.
    """
    if not path.is_file():
        raise SdscratchError(f"{path} is not there; train text encoder and U-Net first")
    return Tokenizer.from_json(path.read_text(encoding="utf-8"))


def save_autoencoder(path: Path, model: Autoencoder, metrics: Mapping[str, float]) -> None:
    """Write a trained, normalised autoencoder for the second stage."""
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    content = safetensors.torch.save(weights, {"figures": json.dumps(dict(metrics))})
    with atomic_write(path, overwrite=True) as file:
        file.write(content)


def load_autoencoder(path: Path, shape: Shape = LARGE) -> tuple[Autoencoder, dict[str, float]]:
    """The inverse of `save_autoencoder`.

    Raises:
        SdscratchError: it is not there.
    """
    if not path.is_file():
        raise SdscratchError(f"{path} is not there; train the autoencoder first")
    model = Autoencoder(shape.autoencoder)
    model.load_state_dict(safetensors.torch.load_file(path))
    with safetensors.safe_open(path, "pt") as file:
        return model.eval().requires_grad_(False), json.loads(file.metadata()["figures"])


def open_trained(path: Path) -> tuple[Autoencoder, Diffusion, Tokenizer]:
    """The networks of a model file, in float32, with its tokenizer.

    Raises:
        CheckpointError: missing, unreadable or refused.
    """
    files = open_model(str(path))
    autoencoder, diffusion = Autoencoder(files.config.autoencoder), Diffusion.from_config(files.config)
    for part, module in _modules(autoencoder, diffusion).items():
        module.load_state_dict(files.load(part, torch.device("cpu"), torch.float32).state_dict())
    return autoencoder.eval(), diffusion.eval(), files.tokenizer


def _modules(autoencoder: Autoencoder, diffusion: Diffusion) -> dict[Part, torch.nn.Module]:
    return {
        "text": diffusion.text,
        "unet": diffusion.unet,
        "encoder": autoencoder.encoder,
        "decoder": autoencoder.decoder,
    }


def save_embedded(
    path: Path,
    shape: Shape,
    autoencoder: Autoencoder,
    diffusion: Diffusion,
    tokenizer: Tokenizer,
    provenance: Mapping[str, Any],
) -> None:
    """Write the model as one float16 file in LDM layout, replacing what has the name."""
    modules = _modules(autoencoder, diffusion)
    save_model(
        path,
        model_config(tokenizer, shape),
        {part: module.state_dict() for part, module in modules.items()},
        tokenizer=tokenizer,
        defaults=shape.defaults,
        provenance=provenance,
        dtype=torch.float16,
        overwrite=True,
    )
