"""Making the work: checkpoint, configurations, latents; each once, and kept in the cache."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench_peers.work import NEGATIVE, PROMPT, Inputs, Work
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.model import open_model
from sdscratch.device import choose
from sdscratch.diffusion.noise import Noise
from sdscratch.generation.pipeline import Pipeline
from sdscratch.models.config import ModelConfig
from sdscratch.options import GenerateOptions
from sdscratch.text.cutting import encode_prompt
from sdscratch.text.tokenizer import Tokenizer
from support.checkpoints import TINY, full_size_checkpoint, ldm_tensors, self_contained, write_ldm
from support.tokenizers import write_folder

__all__ = ["prepare"]


def prepare(
    cache: Path, shape: str, width: int, height: int, steps: int, threads: int, bfloat16: bool
) -> Work:
    """Make what is missing in the cache.

    Args:
        shape: sd1, the real one (4.3 GB), or tiny, to see that everything works.
    """
    name = f"peers-{shape}"
    if shape == "tiny":
        checkpoint = cache / f"{name}.safetensors"
        if not checkpoint.exists():
            write_ldm(checkpoint, ldm_tensors(TINY), self_contained(TINY))
    else:
        checkpoint = full_size_checkpoint()
    config = open_model(checkpoint).config
    folder = cache / name
    write_configs(folder, config)
    inputs = cache / f"{name}-{width}x{height}-{steps}.npz"
    if not inputs.exists():
        make_inputs(checkpoint, folder, width, height, steps).save(inputs)
    return Work(str(checkpoint), str(folder), str(inputs), width, height, steps, threads, bfloat16)


def write_configs(folder: Path, config: ModelConfig) -> None:
    """What diffusers would fetch from the hub."""
    for name, record in to_folder(config, 512).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record))
    write_folder(folder / "tokenizer", Tokenizer.from_merges([]))


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
