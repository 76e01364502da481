"""`train taesd`: a tiny decoder that draws a model's previews."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdscratch.checkpoints.model import open_model
from sdscratch.models.taesd import TinyDecoder
from sdscratch.training.dataset.folder_source import FolderSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.run.job import Work
from sdscratch.training.run.options import TaesdOptions
from sdscratch.training.tasks.autoencoder_files import autoencoder_of
from sdscratch.training.tasks.diffusion_job import EMBEDDED
from sdscratch.training.tasks.latents import latents_of
from sdscratch.training.tasks.samples import save_grid
from sdscratch.training.tasks.taesd import DistillationLoss, save_taesd, tiny_config

__all__ = ["TAESD", "TaesdJob"]

SHOWN = 8  # pictures of a grid
TAESD = "taesd.safetensors"  # what a run ends with


class TaesdJob:
    """Raises as `open_model` does."""

    learning_rate = 1e-3

    def __init__(self, options: TaesdOptions) -> None:
        self.options = options
        self.base = open_model(options.model or EMBEDDED)
        self.autoencoder = autoencoder_of(self.base)
        self.config = tiny_config(self.autoencoder.config, options.channels)

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        return self.options.resolution or self.base.defaults.width, self.autoencoder.config.downscale

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Everything that the loop takes."""
        options = self.options
        cache = Path(options.cache) if options.cache is not None else folder / "cache"
        latents = latents_of(source, self.autoencoder, distributed, cache / "latents", options.seed)
        decoder = self.autoencoder.load("decoder", distributed.device)

        def show(values: Tensor) -> Tensor:
            shown: Tensor = decoder(values / self.autoencoder.config.latent_scale)
            return shown

        network = TinyDecoder(self.config).to(distributed.device)

        def validate(path: Path) -> None:
            values = latents(0, range(min(SHOWN, size))).values
            with torch.no_grad(), distributed.autocast():
                rows = torch.cat([show(values), network(values)])
            save_grid(rows, path, columns=len(values))

        def save(path: Path, provenance: Mapping[str, Any]) -> Path:
            target = path / TAESD
            about = {**provenance, "base": self.base.name, "base_hash": self.base.hash()}
            dtype = torch.float16 if options.dtype == "auto" else getattr(torch, options.dtype)
            save_taesd(target, self.config, network, dtype, about)
            return target

        return Work(network, DistillationLoss(latents, show, distributed), validate, save)
