"""The reference's pictures: diffusers' pipelines, reading the very files that ours reads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.models.config import ModelConfig
from sdscratch.text.tokenizer import Tokenizer
from support.diffusion import reference_scheduler

__all__ = ["Reference", "difference", "sketch"]


class Reference:
    """diffusers' text-to-image and image-to-image on a single file in LDM layout, in float32 on the CPU."""

    def __init__(self, file: Path, config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
        """`folder`: an empty one, for the configurations that diffusers would fetch from the hub."""
        for name, record in to_folder(config, 512).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(record))
        (folder / "tokenizer").mkdir()
        for name, text in tokenizer.to_files().items():
            (folder / "tokenizer" / name).write_text(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers

            diffusers.utils.logging.set_verbosity_error()
            diffusers.utils.logging.disable_progress_bar()
            self.text = diffusers.StableDiffusionPipeline.from_single_file(
                str(file), config=str(folder), local_files_only=True, safety_checker=None
            )
            self.image = diffusers.StableDiffusionImg2ImgPipeline(**self.text.components)
        # this diffusers' clip_skip looks for a module that transformers 5 dissolved into the encoder
        object.__setattr__(self.text.text_encoder, "text_model", self.text.text_encoder)
        for pipeline in (self.text, self.image):
            pipeline.set_progress_bar_config(disable=True)

    def picture(
        self, prompt: str, *, sampler: str, seed: int, init: Image.Image | None = None, **options: Any
    ) -> Image.Image:
        """One picture; options as diffusers names them."""
        pipeline = self.text if init is None else self.image
        if init is not None:
            options["image"] = init
        return self._run(pipeline, prompt, sampler, seed, options)

    def repainted(
        self, prompt: str, *, sampler: str, seed: int, init: Image.Image, mask: Image.Image, **options: Any
    ) -> Image.Image:
        """Its inpainting, with models of 4 or 9 channels."""
        pipeline = self._of_kind("StableDiffusionInpaintPipeline")
        return self._run(pipeline, prompt, sampler, seed, {"image": init, "mask_image": mask, **options})

    def changed(
        self, prompt: str, *, sampler: str, seed: int, init: Image.Image, **options: Any
    ) -> Image.Image:
        """Its InstructPix2Pix."""
        pipeline = self._of_kind("StableDiffusionInstructPix2PixPipeline")
        return self._run(pipeline, prompt, sampler, seed, {"image": init, **options})

    def _of_kind(self, name: str) -> Any:
        import diffusers

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = getattr(diffusers, name)(**self.text.components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @staticmethod
    def _run(pipeline: Any, prompt: str, sampler: str, seed: int, options: dict[str, Any]) -> Image.Image:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            pipeline.scheduler = reference_scheduler(sampler)
            result = pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed), **options)
        return result.images[0]  # type: ignore[no-any-return]

    @contextmanager
    def with_loras(self, files: Mapping[Path, float]) -> Iterator[None]:
        """LoRA files and their weights by diffusers' own loader, while the context lasts."""
        encoder = self.text.text_encoder
        object.__delattr__(encoder, "text_model")  # the loader asks by it how modules are called
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for file in files:
                self.text.load_lora_weights(
                    file.parent, weight_name=file.name, adapter_name=file.stem, local_files_only=True
                )
            self.text.set_adapters([file.stem for file in files], list(files.values()))
            try:
                yield
            finally:
                self.text.unload_lora_weights()
                object.__setattr__(encoder, "text_model", encoder)


def difference(ours: Image.Image, reference: Image.Image) -> tuple[int, float]:
    """The greatest and the mean distance of two pictures, in levels of 255."""
    assert ours.size == reference.size
    distance = np.abs(np.asarray(ours, dtype=int) - np.asarray(reference, dtype=int))
    return int(distance.max()), float(distance.mean())


@cache
def sketch(width: int, height: int) -> Image.Image:
    """A picture with edges, gradients and noise, to start from."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).normal(0, 12, (height, width))
    disc = (x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2
    channels = [255 * x / width, 255 * y / height, np.where(disc, 230, 40)]
    return Image.fromarray(np.clip(np.stack(channels, -1) + noise[..., None], 0, 255).astype(np.uint8))
