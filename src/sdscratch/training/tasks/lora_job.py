"""`train lora`: adapters beside a model's frozen networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.model import open_model
from sdscratch.errors import UsageError
from sdscratch.training.dataset.folder_source import FolderSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.run.job import Work
from sdscratch.training.run.lora_options import LoraOptions
from sdscratch.training.tasks.autoencoder_files import autoencoder_of
from sdscratch.training.tasks.diffusion import DenoisingLoss, Diffusion, FrozenText, Words, tokenized
from sdscratch.training.tasks.diffusion_job import EMBEDDED, LEAST_SIDE
from sdscratch.training.tasks.latents import latents_of
from sdscratch.training.tasks.lora import lora_module, save_lora
from sdscratch.training.tasks.samples import SampleGrid, save_grid

__all__ = ["LORA", "LoraJob"]

SIDE_STEP = 8  # what sides of pictures are multiples of
LORA = "lora.safetensors"  # what a run ends with


class LoraJob:
    """Raises as `open_model` does."""

    learning_rate = 1e-4

    def __init__(self, options: LoraOptions) -> None:
        self.options = options
        self.base = open_model(options.model or EMBEDDED, tokenizer=options.tokenizer)
        self.autoencoder = autoencoder_of(self.base)
        self.tokenizer = self.base.tokenizer
        resolution, _ = self.framing
        if resolution < LEAST_SIDE:
            raise UsageError(f"--resolution is {resolution}, but must be at least {LEAST_SIDE}")

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        return self.options.resolution or self.base.defaults.width, max(8, self.autoencoder.config.downscale)

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Everything that the loop takes.

        The encoders come and go before the U-Net is loaded: never more than is needed is in memory.
        """
        options, plan, config = self.options, self.options.plan, self.base.config
        cache = Path(options.cache) if options.cache is not None else folder / "cache"
        latents = latents_of(source, self.autoencoder, distributed, cache / "latents", options.seed)
        frozen = None if plan.text_encoder else self._frozen_text(source, distributed, cache / "texts")
        module, adapters = lora_module(self.base, plan, distributed, seed=options.seed)
        words: Words
        encode: Callable[[str], Tensor]
        if frozen is not None:
            unet, words, encode = module, frozen, lambda prompt: frozen.context([prompt])
        else:
            assert isinstance(module, Diffusion)
            unet, text, ids = module.unet, module.text, tokenized(self.tokenizer, distributed.device)
            words, encode = ids, lambda prompt: text(ids([prompt]))
        loss = DenoisingLoss(
            config.schedule,
            words,
            latents,
            distributed,
            size=size,
            seed=options.seed,
            dropout=options.caption_dropout,
            late_bias=options.late_bias,
            snr_gamma=options.snr_gamma,
        )
        side = self.framing[0] // SIDE_STEP * SIDE_STEP
        as_trained = replace(self.base.defaults, width=side, height=side)

        def decoder() -> nn.Module:
            return self.autoencoder.load("decoder", distributed.device)

        grid = SampleGrid(config, as_trained, encode, decoder, distributed)

        def validate(path: Path) -> None:
            if prompts := options.validation_prompt:
                save_grid(grid.draw(unet, prompts, options.seed), path, columns=len(prompts))

        return Work(module, loss, validate, lambda path, about: self._save(path / LORA, adapters, about))

    def _frozen_text(self, source: FolderSource, distributed: DistributedContext, cache: Path) -> FrozenText:
        def load(device: torch.device) -> nn.Module:
            return self.base.load("text", device, torch.float32)

        frozen = FrozenText(load, self.tokenizer, distributed, cache)
        frozen.fill(source.captions)
        return frozen

    def _save(self, path: Path, adapters: nn.Module, provenance: Mapping[str, Any]) -> Path:
        asked = self.options.dtype
        save_lora(
            path,
            adapters.state_dict(),
            self.options.plan,
            base_name=self.base.name,
            base_hash=self.base.hash(),
            provenance=provenance,
            dtype=torch.float32 if asked == "auto" else getattr(torch, asked),
            overwrite=True,
        )
        return path
