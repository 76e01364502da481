"""The work that every engine is given: one checkpoint, one latent, one prompt, the same sizes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.models.config import ModelConfig
from sdscratch.text.tokenizer import Tokenizer
from support.checkpoints import TINY, full_size_checkpoint, ldm_tensors, self_contained, write_ldm
from support.tokenizers import write_folder

__all__ = ["Inputs", "Work", "prepare"]

Array = npt.NDArray[np.float32]

PROMPT, NEGATIVE = "a photograph of an astronaut riding a horse", "blurry"


@dataclass(frozen=True)
class Work:
    """Files that all engines read, and what they compute; travels as JSON."""

    checkpoint: str
    folder: str  # configurations and tokenizer, as diffusers would fetch them
    inputs: str  # an .npz of `Inputs`
    width: int
    height: int
    steps: int
    threads: int
    bfloat16: bool  # whether the processor has arithmetic for it


@dataclass(frozen=True)
class Inputs:
    """The first step of Euler's method, and a latent to decode; all float32."""

    x: Array  # [1, 4, h, w] in σ-space
    sigma: float
    timestep: float
    context: Array  # [2, 77, 768]: the negative prompt, the prompt
    scale: float
    latent: Array  # [1, 4, h, w], as the U-Net sees latents
    latent_scale: float

    def save(self, path: Path) -> None:
        """Write all of it."""
        np.savez(path, **{name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def read(cls, path: str | Path) -> Inputs:
        """The inverse of `save`."""
        with np.load(path) as file:
            values = {name: file[name] for name in file.files}
        return cls(**{name: value if value.ndim else float(value) for name, value in values.items()})

    @property
    def network_input(self) -> Array:
        """[2, 4, h, w]: both halves of guidance, in the scale that the U-Net was trained at."""
        scaled = self.x / np.sqrt(1.0 + self.sigma**2)
        return np.concatenate([scaled, scaled]).astype(np.float32)

    def guided(self, both: Array) -> Array:
        """[2, 4, h, w] predictions → the guided one."""
        without, with_prompt = both[:1].astype(np.float32), both[1:].astype(np.float32)
        return without + np.float32(self.scale) * (with_prompt - without)


def prepare(
    cache: Path, shape: str, width: int, height: int, steps: int, threads: int, bfloat16: bool
) -> Work:
    """Make what is missing in the cache.

    Args:
        shape: sd1, the real one (4.3 GB), or tiny, to see that everything works.
    """
    from sdscratch.checkpoints.model import open_model

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
    import torch

    from sdscratch.checkpoints.model import open_model
    from sdscratch.device import choose
    from sdscratch.options import GenerateOptions
    from sdscratch.pipeline import Pipeline
    from sdscratch.text.prompt import encode_prompt

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
    x = next(pipeline.steps(options)).latent
    return Inputs(
        x=x.numpy(),
        sigma=path.sigmas[0],
        timestep=path.timesteps[0],
        context=context.numpy(),
        scale=options.cfg_scale,
        latent=(x / path.start_scale).numpy(),
        latent_scale=files.config.autoencoder.latent_scale,
    )
