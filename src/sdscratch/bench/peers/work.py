"""The work that every engine is given: one checkpoint, one latent, one prompt, the same sizes.

Imports no torch: in an engine's process it would be counted as the engine's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NEGATIVE", "PROMPT", "Array", "Inputs", "Work"]

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
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: str | Path) -> Inputs:
        """The inverse of `save`."""
        with np.load(path) as file:
            values: dict[str, Any] = {name: file[name] for name in file.files}
        values = {name: value if value.ndim else float(value) for name, value in values.items()}
        return cls(**values)

    @property
    def network_input(self) -> Array:
        """[2, 4, h, w]: both halves of guidance, in the scale that the U-Net was trained at."""
        scaled = self.x / np.sqrt(1.0 + self.sigma**2)
        return np.concatenate([scaled, scaled]).astype(np.float32)

    def guided(self, both: Array) -> Array:
        """[2, 4, h, w] predictions → the guided one."""
        without, with_prompt = both[:1].astype(np.float32), both[1:].astype(np.float32)
        return without + np.float32(self.scale) * (with_prompt - without)
