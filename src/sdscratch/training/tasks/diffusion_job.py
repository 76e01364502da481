"""`train diffusion`: text encoder and U-Net, from nothing or further from a model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.options import Defaults
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.dataset.folder_source import FolderSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.run.job import Work
from sdscratch.training.run.options import DenoisingOptions, DiffusionOptions
from sdscratch.training.run.run_folder import MODEL
from sdscratch.training.tasks.architectures import architecture, fitted
from sdscratch.training.tasks.autoencoder_files import AutoencoderFiles, autoencoder_of, open_autoencoder
from sdscratch.training.tasks.diffusion import DenoisingLoss, Diffusion, FrozenText, Words, tokenized
from sdscratch.training.tasks.latents import latents_of
from sdscratch.training.tasks.model_file import dtype_asked, save_trained
from sdscratch.training.tasks.samples import SampleGrid, save_grid

__all__ = ["DiffusionJob"]

EMBEDDED = "default"
LEAST_SIDE = 64  # that a model draws
FROM_NOTHING = {"steps": 20, "cfg_scale": 3.0, "sampler": "dpm++2m", "scheduler": "trailing"}
PROMPTS = 4  # captions that are drawn where no prompt is given


class DiffusionJob:
    """Raises as `TrainOptions`, `architecture`, `open_model` and `open_coder` do."""

    def __init__(self, options: DiffusionOptions) -> None:
        self.options = options
        tokenizer = options.tokenizer
        self.base: ModelFiles | None = None
        if options.model is not None:
            self.base = open_model(options.model, tokenizer=tokenizer)
        self.autoencoder: AutoencoderFiles = (
            autoencoder_of(self.base)
            if self.base is not None and options.vae is None
            else open_autoencoder(options.vae or EMBEDDED)
        )
        if self.base is not None:
            self.tokenizer = self.base.tokenizer
            self.config = replace(self.base.config, autoencoder=self.autoencoder.config)
        else:
            self.tokenizer = (
                Tokenizer.from_path(tokenizer) if tokenizer is not None else open_model(EMBEDDED).tokenizer
            )
            self.config = fitted(architecture(options.architecture), self.autoencoder.config, self.tokenizer)
        given, taken = self.autoencoder.config.latent_channels, self.config.unet.latent_channels
        if given != taken:
            raise CheckpointError(
                f"the latents of {self.autoencoder.name} have {given} channels, but the U-Net takes {taken}; "
                "give another --vae"
            )
        if options.prediction_type is not None:
            schedule = replace(self.config.schedule, prediction=options.prediction_type)
            self.config = replace(self.config, schedule=schedule)
        resolution, _ = self.framing
        if resolution < LEAST_SIDE:
            raise UsageError(f"--resolution is {resolution}, but must be at least {LEAST_SIDE}")

    @property
    def trains_text(self) -> bool:
        """Whether the text encoder changes."""
        asked = self.options.train_text_encoder
        return self.base is None if asked is None else asked

    @property
    def learning_rate(self) -> float:
        """Careful with what is learnt already."""
        return 5e-4 if self.base is None else 1e-5

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        files = self.base or self.autoencoder.model
        own = files.defaults.width if files is not None else LEAST_SIDE
        # the U-Net's skips meet at any size, but models know multiples of 8 positions best
        return self.options.resolution or own, max(8, self.config.autoencoder.downscale)

    @property
    def defaults(self) -> Defaults:
        """What the result would like to be asked for."""
        if self.base is not None:
            return self.base.defaults
        resolution, _ = self.framing
        side = resolution - resolution % 8
        return Defaults(width=side, height=side, **FROM_NOTHING)  # type: ignore[arg-type]

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Everything that the loop takes."""
        options = self.options
        model = self._networks(distributed)
        trains_text = self.trains_text
        cache = Path(options.cache) if options.cache is not None else folder / "cache"
        words: Words
        if trains_text:
            module: nn.Module = model
            words = tokenized(self.tokenizer, distributed.device)
            encode = _encoder_of(model.text, words)
        else:
            module = model.unet
            frozen = FrozenText(self._text, self.tokenizer, distributed, cache / "texts")
            frozen.fill(source.captions)
            words, encode = frozen, lambda prompt: frozen.context([prompt])
            model.text = None  # type: ignore[assignment]
        loss = DenoisingLoss(
            self.config.schedule,
            words,
            latents_of(source, self.autoencoder, distributed, cache / "latents", options.seed),
            distributed,
            size=size,
            seed=options.seed,
            dropout=options.caption_dropout,
            late_bias=options.late_bias,
            snr_gamma=options.snr_gamma,
        )
        side = self.framing[0] // 8 * 8
        asked = replace(self.defaults, width=side, height=side)

        def decoder() -> nn.Module:
            return self.autoencoder.load("decoder", distributed.device)

        grid = SampleGrid(self.config, asked, encode, decoder, distributed)
        prompts = prompts_of(options, source)

        def validate(path: Path) -> None:
            if not prompts:
                return
            save_grid(grid.draw(model.unet, prompts, options.seed), path, columns=len(prompts))

        def save(path: Path, provenance: Mapping[str, Any]) -> Path:
            parts = {"unet": model.unet} | ({"text": model.text} if trains_text else {})
            dtype = dtype_asked(options.dtype, self.base)
            target = path / MODEL
            about = {**provenance, "base": self.base.name if self.base is not None else None}
            save_trained(target, self.config, parts, self._rest, self.tokenizer, self.defaults, about, dtype)
            return target

        return Work(module, loss, validate, save)

    def _networks(self, distributed: DistributedContext) -> Diffusion:
        if self.base is None:
            return Diffusion.from_config(self.config).to(distributed.device)
        unet = self.base.load("unet", distributed.device, torch.float32).requires_grad_(True)
        text = self._text(distributed.device) if self.trains_text else nn.Identity()
        return Diffusion(text.requires_grad_(True), unet)  # type: ignore[arg-type]

    def _text(self, device: torch.device) -> nn.Module:
        assert self.base is not None
        return self.base.load("text", device, torch.float32)

    def _rest(self, weight: Weight) -> Tensor:
        """What is not trained."""
        if weight.part in ("encoder", "decoder"):
            return self.autoencoder.read(weight)
        assert self.base is not None
        return self.base.read(weight)


def _encoder_of(text: nn.Module, words: Words) -> Callable[[str], Tensor]:
    return lambda prompt: text(words([prompt]))


def prompts_of(options: DenoisingOptions, source: FolderSource) -> Sequence[str]:
    """What to draw: the prompts given; else some captions, or with --model, which may be slow, nothing."""
    captions = () if options.model is not None else source.captions
    return options.validation_prompt or captions[:: max(1, -(-len(captions) // PROMPTS))]
