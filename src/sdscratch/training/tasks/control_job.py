"""`train control`: a ControlNet or an adapter beside a model's frozen networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.models.controlnet import ControlNet
from sdscratch.models.t2i_adapter import Adapter
from sdscratch.models.unet import UNet
from sdscratch.training.dataset.folder_source import FolderSource, Levels
from sdscratch.training.dataset.hints import GivenHints, MadeHints
from sdscratch.training.dataset.plan import View
from sdscratch.training.dataset.source import LatentSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.run.control_options import ControlOptions
from sdscratch.training.run.job import Work
from sdscratch.training.tasks.autoencoder_files import autoencoder_of
from sdscratch.training.tasks.control import Steered, adapter_for, controlnet_for, hinted, save_control
from sdscratch.training.tasks.diffusion import DenoisingLoss, FrozenText
from sdscratch.training.tasks.diffusion_job import EMBEDDED, LEAST_SIDE
from sdscratch.training.tasks.latents import latents_of
from sdscratch.training.tasks.samples import SampleGrid, save_grid

__all__ = ["CONTROL", "ControlJob"]

CONTROL = "control.safetensors"  # what a run ends with


class ControlJob:
    """Raises as `open_model` does; and a CheckpointError for a model that is told of a picture already."""

    learning_rate = 1e-4

    def __init__(self, options: ControlOptions) -> None:
        self.options = options
        self.base = open_model(options.model or EMBEDDED, tokenizer=options.tokenizer)
        if self.base.config.unet.beside is not None:
            raise CheckpointError(
                f"{self.base.name} is a model that sees a {self.base.config.unet.beside} beside the noise; a "
                "control is trained for an ordinary model"
            )
        self.autoencoder = autoencoder_of(self.base)
        resolution, _ = self.framing
        if resolution < LEAST_SIDE:
            raise UsageError(f"--resolution is {resolution}, but must be at least {LEAST_SIDE}")

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        return self.options.resolution or self.base.defaults.width, max(8, self.autoencoder.config.downscale)

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Everything that the loop takes; never more than is needed is in memory.

        Raises:
            ImageError: a picture has no hint.
        """
        options, config = self.options, self.base.config
        hint: Callable[[View], Levels]
        if options.preprocess is not None:
            hint = MadeHints(source, options.preprocess)
        else:
            hint = GivenHints(source, Path(options.hints or ""))
        cache = Path(options.cache) if options.cache is not None else folder / "cache"
        latents = latents_of(source, self.autoencoder, distributed, cache / "latents", options.seed, hint)
        words = self._words(source, distributed, cache / "texts")
        module = self._module(distributed)
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

        def decoder() -> nn.Module:
            return self.autoencoder.load("decoder", distributed.device)

        def validate(path: Path) -> None:
            if not options.validation_prompt:
                return
            hints = shown(latents, len(options.validation_prompt), size)
            height, width = hints.shape[2:]
            asked = replace(self.base.defaults, width=width, height=height)
            grid = SampleGrid(config, asked, lambda text: words.context([text]), decoder, distributed)
            with torch.no_grad(), distributed.autocast():
                controls = [hinted(module.control, each[None]) for each in hints]
                drawn = grid.draw(module.unet, options.validation_prompt, options.seed, controls)
            save_grid(torch.cat([hints.cpu() * 2.0 - 1.0, drawn]), path, columns=len(drawn))

        def save(path: Path, provenance: Mapping[str, Any]) -> Path:
            about = {**provenance, "base": self.base.name, "base_hash": self.base.hash()}
            about["hints"] = options.preprocess or "given"
            dtype = torch.float16 if options.dtype == "auto" else getattr(torch, options.dtype)
            save_control(path / CONTROL, module.control, about, dtype)
            return path / CONTROL

        return Work(module, loss, validate, save)

    def _words(self, source: FolderSource, distributed: DistributedContext, cache: Path) -> FrozenText:
        def load(device: torch.device) -> nn.Module:
            return self.base.load("text", device, torch.float32)

        frozen = FrozenText(load, self.base.tokenizer, distributed, cache)
        frozen.fill(source.captions)
        return frozen

    def _module(self, distributed: DistributedContext) -> Steered:
        """The frozen U-Net in the run's precision, and the control in float32."""
        options, config = self.options, self.base.config
        unet = self.base.load("unet", distributed.device, torch.float32)
        assert isinstance(unet, UNet)
        control: Adapter | ControlNet
        if options.kind == "controlnet":
            control = controlnet_for(config, unet, hint_channels=options.hint_channels)
        else:
            light = options.kind == "t2i-adapter-light"
            control = adapter_for(config, hint_channels=options.hint_channels, light=light)
        module = Steered(unet.to(distributed.precision), control.to(distributed.device))
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def shown(latents: LatentSource, count: int, size: int) -> Tensor:
    """So many of the first step's hints, [count, k, H, W]: in turn, where there are fewer."""
    hints = latents(0, range(min(count, size))).hints
    assert hints is not None
    return hints[[index % len(hints) for index in range(count)]]
