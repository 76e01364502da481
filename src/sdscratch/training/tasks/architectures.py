"""The shapes of models that are made from nothing (no torch)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from sdscratch.errors import UsageError
from sdscratch.models.config import (
    SD1,
    AutoencoderConfig,
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
)
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.run.config_file import read_toml
from sdscratch.training.run.options import ARCHITECTURES

__all__ = ["NOISY_END", "architecture", "fitted"]

# Stable Diffusion's betas leave ᾱ = 0.0047 at the end: the mean of so small a latent would show through the
# noise, and plain backgrounds would drift at sampling. These leave 0.0001.
NOISY_END = ScheduleConfig(beta_end=0.0224, prediction="v")

TINY = ModelConfig(  # minutes on a laptop: a few million parameters
    TextEncoderConfig(width=96, layers=2, heads=4, feed_forward=256),
    UNetConfig(
        channels=32,
        multipliers=(1, 2, 4),
        attends=(False, True, True),
        residual_blocks=1,
        heads=4,
        context=96,
        norm_groups=8,
    ),
    AutoencoderConfig(channels=16, multipliers=(1, 2, 4), residual_blocks=1, latent_scale=1.0, norm_groups=8),
    NOISY_END,
)
SMALL = ModelConfig(  # hours: the built-in model's order of size
    TextEncoderConfig(width=192, layers=3, heads=4, feed_forward=512),
    UNetConfig(
        channels=64,
        multipliers=(1, 2, 4),
        attends=(False, True, True),
        residual_blocks=1,
        heads=4,
        context=192,
    ),
    AutoencoderConfig(
        channels=32,
        multipliers=(1, 2, 4, 4),
        residual_blocks=1,
        latent_channels=8,
        latent_scale=1.0,
    ),
    NOISY_END,
)

SHAPES: dict[str, ModelConfig] = dict(zip(ARCHITECTURES, (TINY, SMALL, SD1), strict=True))


def architecture(name: str | None) -> ModelConfig:
    """The shape called so, or the one in a TOML file with tables `text`, `unet`, `autoencoder`, `schedule`.

    Raises:
        UsageError: no such shape, or a broken file.
    """
    if name is None or name in SHAPES:
        return SHAPES[name or ARCHITECTURES[0]]
    if not name.endswith(".toml"):
        raise UsageError(f"no architecture is called {name!r}; say {', '.join(SHAPES)}, or name a .toml file")
    record = read_toml(Path(name))
    try:
        return ModelConfig.from_json(json.dumps(record, default=str))
    except ValueError as error:
        raise UsageError(f"{name} is no architecture: {error}") from None


def fitted(shape: ModelConfig, autoencoder: AutoencoderConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The shape with room for an autoencoder's latents, and for a tokenizer's ids."""
    latents = autoencoder.latent_channels
    return replace(
        shape,
        text=replace(shape.text, vocabulary=tokenizer.size, length=tokenizer.length),
        unet=replace(shape.unet, in_channels=latents, out_channels=latents),
        autoencoder=autoencoder,
    )
