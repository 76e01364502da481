"""What an engine is, and ours."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from sdscratch.bench.peers.work import NEGATIVE, PROMPT, Array, Inputs, Work
from sdscratch.version import __version__

__all__ = ["Engine", "Ours", "OursExact", "OursIntegers"]


class Engine(ABC):
    """One way to compute the work."""

    reloads: ClassVar[int] = 2  # how often it is loaded; the last time counts
    once: ClassVar[bool] = False  # so slow that it is measured once and never warmed up

    def __init__(self, work: Work) -> None:
        self.work = work
        self.inputs = Inputs.read(work.inputs)

    @property
    @abstractmethod
    def precision(self) -> str:
        """What it computes in."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Of what it is made; imports it."""

    @abstractmethod
    def load(self) -> None:
        """Read the checkpoint, ready to run."""

    @abstractmethod
    def steps(self) -> float:
        """Seconds of one guided step, the mean of the work's number of them."""

    @abstractmethod
    def decode(self) -> float:
        """Seconds of decoding one latent."""

    def prediction(self) -> Array | None:
        """The guided prediction of the first step, [1, 4, h, w]; None where it cannot be had."""
        return None

    def picture(self) -> Array | None:
        """The decoded picture, [H, W, 3] in levels of 255; None where it cannot be had."""
        return None


class Ours(Engine):
    """sdscratch in the precision that it chooses."""

    dtype: ClassVar[str] = "auto"
    pipeline: Any = None

    @property
    def precision(self) -> str:
        return str(self.pipeline.placement.dtype_name)

    def versions(self) -> dict[str, str]:
        import torch

        return {"sdscratch": __version__, "torch": torch.__version__}

    def load(self) -> None:
        from sdscratch.checkpoints.model import open_model
        from sdscratch.device import choose
        from sdscratch.generation.pipeline import Pipeline
        from sdscratch.options import GenerateOptions

        if self.pipeline is not None:
            self.pipeline.networks.clear()  # else two would be in memory
        placement = choose("cpu", self.dtype)
        if self.dtype not in ("auto", placement.dtype_name):
            raise RuntimeError(f"this processor has no {self.dtype}")
        files = open_model(self.work.checkpoint, tokenizer=f"{self.work.folder}/tokenizer")
        self.pipeline = Pipeline(files, placement)
        sides = {"width": self.work.width, "height": self.work.height}
        asked = GenerateOptions(
            PROMPT,
            NEGATIVE,
            steps=self.work.steps,
            seed=0,
            sampler="euler",
            cfg_scale=self.inputs.scale,
            **sides,
        )
        self.options = self.pipeline.resolve(asked)
        for _ in self.pipeline.load(self.pipeline.parts_for(self.options)):
            pass

    def steps(self) -> float:
        steps = self.pipeline.steps(self.options)
        next(steps)
        start = time.perf_counter()
        for self.last in steps:
            if self.last.done == 1:
                self.denoised = self.last.denoised
        return (time.perf_counter() - start) / self.work.steps

    def decode(self) -> float:
        import torch

        latent = torch.from_numpy(self.inputs.latent)
        start = time.perf_counter()
        (self.drawn,) = self.pipeline.decode(latent)
        return time.perf_counter() - start

    def prediction(self) -> Array:
        exact: Array = (self.inputs.x - self.denoised.numpy()) / np.float32(self.inputs.sigma)
        return exact

    def picture(self) -> Array:
        return np.asarray(self.drawn, dtype=np.float32)


class OursExact(Ours):
    """sdscratch in float32."""

    dtype = "float32"


class OursIntegers(Ours):
    """sdscratch with products of 8-bit integers."""

    dtype = "int8"
