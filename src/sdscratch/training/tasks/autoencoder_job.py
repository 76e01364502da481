"""`train autoencoder`: from nothing, or further from a model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdscratch.training.dataset.folder_source import FolderSource
from sdscratch.training.dataset.source import Source
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.step import Loss
from sdscratch.training.run.job import Work
from sdscratch.training.run.options import AutoencoderOptions
from sdscratch.training.run.run_folder import MODEL
from sdscratch.training.tasks.adversarial import AdversarialAutoencoder, AdversarialLoss, Discriminator
from sdscratch.training.tasks.architectures import architecture
from sdscratch.training.tasks.autoencoder import (
    Autoencoder,
    ReconstructionLoss,
    fold_normalisation,
    latent_statistics,
)
from sdscratch.training.tasks.autoencoder_files import AutoencoderFiles, open_autoencoder, save_autoencoder
from sdscratch.training.tasks.model_file import dtype_asked, save_trained
from sdscratch.training.tasks.samples import save_grid

__all__ = ["AutoencoderJob"]

SHOWN = 8  # pictures of a grid
RESOLUTION = 128  # where no model says one


class AutoencoderJob:
    """Raises as `TrainOptions`, `architecture` and `open_coder` do."""

    def __init__(self, options: AutoencoderOptions) -> None:
        self.options = options
        self.base: AutoencoderFiles | None = None
        if options.model is not None:
            self.base = open_autoencoder(options.model)
        made = architecture(options.architecture).autoencoder
        self.config = self.base.config if self.base is not None else made

    @property
    def learning_rate(self) -> float:
        """Careful with what is learnt already."""
        return 1e-3 if self.base is None else 1e-4

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        files = self.base.model if self.base is not None else None
        own = files.defaults.width if files is not None else RESOLUTION
        return self.options.resolution or own, self.config.downscale

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Everything that the loop takes."""
        options = self.options
        model = (
            self.base.load_both(distributed.device)
            if self.base is not None
            else Autoencoder(self.config).to(distributed.device)
        )
        if options.freeze_encoder:
            model.encoder.requires_grad_(False)
        module: nn.Module = model
        loss: Loss
        loss = plain = ReconstructionLoss(
            source, self.config, distributed, size=size, seed=options.seed, weights=options.weights()
        )
        if options.adversarial_weight:
            module = AdversarialAutoencoder(model, Discriminator().to(distributed.device))
            loss = AdversarialLoss(plain, options.adversarial_weight)

        def validate(path: Path) -> None:
            pictures = _shown(source, distributed.device, size)
            with torch.no_grad(), distributed.autocast():
                made = model(pictures)[0]
            save_grid(torch.cat([pictures, made.float()]), path, columns=len(pictures))

        def save(path: Path, provenance: Mapping[str, Any]) -> Path:
            return self._save(path / MODEL, model, source, distributed, size, provenance)

        return Work(module, loss, validate, save)

    def _save(
        self,
        path: Path,
        model: Autoencoder,
        source: Source,
        distributed: DistributedContext,
        size: int,
        provenance: Mapping[str, Any],
    ) -> Path:
        """Within the model that it was a part of; else alone, with latents of mean 0 and deviation 1."""
        base = self.base.model if self.base is not None else None
        dtype = dtype_asked(self.options.dtype, base)
        if base is not None:
            parts = {"encoder": model.encoder, "decoder": model.decoder}
            save_trained(
                path, base.config, parts, base.read, base.own_tokenizer, base.defaults, provenance, dtype
            )
        else:
            if self.base is None:
                fold_normalisation(
                    model, *latent_statistics(source, model.encoder, distributed.device, batch=size)
                )
            save_autoencoder(path, model, dtype, provenance)
        return path


def _shown(source: Source, device: torch.device, size: int) -> torch.Tensor:
    """Pictures that are not trained on; where none is held out, others."""
    held_out = source.held_out(SHOWN, device).pictures
    return held_out if len(held_out) else source.batch(0, range(min(SHOWN, size)), device).pictures
