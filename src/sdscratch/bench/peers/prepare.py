"""Making the work: checkpoint, configurations, latents; each once, and kept in the cache."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from sdscratch.bench.peers.work import NEGATIVE, PROMPT, Inputs, Work
from sdscratch.bench.random_model import write_random_model
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.model import open_model
from sdscratch.device import choose
from sdscratch.diffusion.noise import Noise
from sdscratch.files import make_folder
from sdscratch.generation.pipeline import Pipeline
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig, TextEncoderConfig, UNetConfig
from sdscratch.options import GenerateOptions
from sdscratch.text.cutting import encode_prompt
from sdscratch.text.tokenizer import Tokenizer

__all__ = ["SHAPES", "prepare", "usual_cache"]

# Stable Diffusion 1.x in everything but its widths: other engines find all its names.
TINY = ModelConfig(
    TextEncoderConfig(vocabulary=514, width=32, layers=2, heads=4, feed_forward=64),
    UNetConfig(channels=16, multipliers=(1, 2, 4, 4), heads=4, context=32, norm_groups=8),
    AutoencoderConfig(channels=8, multipliers=(1, 2, 4, 4), norm_groups=4),
)
SHAPES = {"sd1": SD1, "tiny": TINY}


def usual_cache() -> Path:
    """Where what is made stays between runs: with the temporary files, for it is large."""
    return Path(tempfile.gettempdir()) / "sdscratch-bench-peers"


def prepare(
    cache: Path, shape: str, width: int, height: int, steps: int, threads: int, bfloat16: bool
) -> Work:
    """Make what is missing in the cache.

    Args:
        shape: a key of `SHAPES`: sd1, the real one (4.3 GB), or tiny, to see that everything works.
    """
    make_folder(cache)
    checkpoint = cache / f"{shape}.safetensors"
    if not checkpoint.exists():
        write_random_model(checkpoint, SHAPES[shape])
    folder = cache / shape
    write_configs(folder, SHAPES[shape])
    inputs = cache / f"{shape}-{width}x{height}-{steps}.npz"
    if not inputs.exists():
        make_inputs(checkpoint, folder, width, height, steps).save(inputs)
    return Work(str(checkpoint), str(folder), str(inputs), width, height, steps, threads, bfloat16)


def write_configs(folder: Path, config: ModelConfig) -> None:
    """What diffusers would fetch from the hub."""
    for name, record in to_folder(config, 512).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record))
    make_folder(folder / "tokenizer")
    for name, text in Tokenizer.from_merges([]).to_files().items():  # bytes and nothing else
        (folder / "tokenizer" / name).write_text(text, encoding="utf-8")


def make_inputs(checkpoint: Path, folder: Path, width: int, height: int, steps: int) -> Inputs:
    """Everything at full precision, by our own pipeline: seed 0, Euler, SD 1.x's guidance scale."""
    files = open_model(checkpoint, tokenizer=str(folder / "tokenizer"))
    pipeline = Pipeline(files, choose("cpu", "float32"))
    options = pipeline.resolve(
        GenerateOptions(
            PROMPT, NEGATIVE, width=width, height=height, steps=steps, seed=0, sampler="euler", cfg_scale=7.5
        )
    )
    ids = [encode_prompt(files.tokenizer, text) for text in (NEGATIVE, PROMPT)]
    context = pipeline.networks.run("text", lambda network: network(torch.tensor(ids)))
    path = pipeline.path(options)
    autoencoder = files.config.autoencoder
    sides = (height // autoencoder.downscale, width // autoencoder.downscale)
    noise = Noise([0], (files.config.unet.latent_channels, *sides))()  # that of seed 0
    return Inputs(
        x=(noise * path.start_scale).numpy(),
        sigma=path.sigmas[0],
        timestep=path.timesteps[0],
        context=context.numpy(),
        scale=options.cfg_scale,
        latent=noise.numpy(),
        latent_scale=autoencoder.latent_scale,
    )
