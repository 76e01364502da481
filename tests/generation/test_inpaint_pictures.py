"""Inpainting and InstructPix2Pix give the reference's picture, to one level of 255."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdscratch import Pipeline, load
from sdscratch.models.config import SD1, ModelConfig
from sdscratch.text.tokenizer import Tokenizer
from support.checkpoints import TINY, full_size_checkpoint, ldm_tensors, tiny_tokenizer, write_ldm
from support.reference import Reference, difference, sketch
from support.shared import shared_path

PROMPT = "the red apple on the dog"
CONFIGS = {channels: replace(TINY, unet=replace(TINY.unet, in_channels=channels)) for channels in (4, 8, 9)}
Pair = tuple[Pipeline, Reference]


@cache
def mask_of(width: int, height: int) -> Image.Image:
    """A mask with a straight and a round edge, touching one side."""
    y, x = np.mgrid[0:height, 0:width]
    inside = ((x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.3 * height) ** 2) | (
        (y > 0.7 * height) & (x < 0.5 * width)
    )
    return Image.fromarray((inside * 255).astype(np.uint8))


def pair_of(config: ModelConfig, folder: Path) -> Pair:
    """A pipeline and the reference on the same random model."""
    folder.mkdir(parents=True, exist_ok=True)
    file = write_ldm(
        folder / "model.safetensors", ldm_tensors(config), {"sdscratch.config": config.to_json()}
    )
    tokenizer = tiny_tokenizer()
    (folder / "tokenizer").mkdir()
    for name, text in tokenizer.to_files().items():
        (folder / "tokenizer" / name).write_text(text)
    (folder / "configs").mkdir()
    reference = Reference(file, config, tokenizer, folder / "configs")
    return load(str(file), device="cpu", dtype="float32", tokenizer=str(folder / "tokenizer")), reference


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Pair]:
    folder = tmp_path_factory.mktemp("tiny")
    return {channels: pair_of(config, folder / str(channels)) for channels, config in CONFIGS.items()}


@dataclass(frozen=True)
class Case:
    """What is asked of both."""

    channels: int
    sampler: str
    width: int = 64
    height: int = 64
    steps: int = 4
    scale: float = 7.5
    seed: int = 0
    strength: float = 1.0
    padding: int | None = None  # only the mask's part, with so many pixels around
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        part = "" if self.padding is None else f" padding {self.padding}"
        return f"{self.channels} {self.sampler} {self.width}x{self.height} strength {self.strength}{part}"


CASES = [
    Case(4, "ddpm"),
    Case(4, "ddim", 72, 104, strength=0.7, seed=3),
    Case(4, "euler", strength=0.4, steps=6),
    Case(4, "euler_a", 104, 72, strength=1.0, scale=1.0),
    Case(4, "heun", strength=0.8),
    Case(4, "dpm++2m", 88, 64, strength=0.6, steps=6, more={"negative_prompt": "cat"}),
    Case(4, "lcm", strength=1.0),
    Case(9, "ddpm", 72, 104),
    Case(9, "euler", strength=0.5, steps=6, seed=4),
    Case(9, "euler_a", strength=0.8, seed=1),
    Case(4, "ddim", 101, 75, strength=0.8, padding=8),
    Case(9, "euler", 150, 90, strength=1.0, padding=12),
]


def pictures(case: Case, pair: Pair) -> tuple[Image.Image, Image.Image]:
    """Ours and the reference's."""
    pipeline, reference = pair
    init, mask = sketch(case.width, case.height), mask_of(case.width, case.height)
    size = {"width": 64, "height": 72} if case.padding is not None else {}
    ours = pipeline.img2img(
        init,
        PROMPT,
        mask=mask,
        like="diffusers",
        sampler=case.sampler,
        steps=case.steps,
        cfg_scale=case.scale,
        seed=case.seed,
        strength=case.strength,
        mask_blur=0,
        paste=case.padding is not None,
        only_masked=case.padding,
        **size,
        **case.more,
    )
    theirs = reference.repainted(
        PROMPT,
        sampler=case.sampler,
        seed=case.seed,
        init=init,
        mask=mask,
        num_inference_steps=case.steps,
        guidance_scale=case.scale,
        strength=case.strength,
        padding_mask_crop=case.padding,
        **({"width": case.width, "height": case.height} | size),
        **case.more,
    )
    return ours, theirs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_tiny_model_repaints_as_the_reference(case: Case, tiny: dict[int, Pair]) -> None:
    greatest, mean = difference(*pictures(case, tiny[case.channels]))
    assert greatest <= 1, f"{greatest} levels apart"
    assert mean <= 0.01, f"{mean} levels apart on average"


@pytest.mark.parametrize(("sampler", "image_scale"), [("euler", 1.0), ("ddim", 1.5), ("euler_a", 3.0)])
def test_a_tiny_model_follows_instructions_as_the_reference(
    sampler: str, image_scale: float, tiny: dict[int, Pair]
) -> None:
    pipeline, reference = tiny[8]
    init = sketch(72, 64)
    ours = pipeline.img2img(
        init, PROMPT, like="diffusers", sampler=sampler, steps=4, cfg_scale=5.0, seed=7,
        image_cfg_scale=image_scale, negative_prompt="cat",
    )  # fmt: skip
    theirs = reference.changed(
        PROMPT, sampler=sampler, seed=7, init=init, num_inference_steps=4, guidance_scale=5.0,
        image_guidance_scale=image_scale, negative_prompt="cat",
    )  # fmt: skip
    greatest, mean = difference(ours, theirs)
    assert greatest <= 1
    assert mean <= 0.01


@pytest.mark.full
@pytest.mark.parametrize("channels", [4])
def test_a_full_size_model_repaints_as_the_reference(
    channels: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = shared_path("clip", "bpe_simple_vocab_16e6.txt.gz")
    config = replace(SD1, unet=replace(SD1.unet, in_channels=channels))
    file = full_size_checkpoint(config=config)
    reference = Reference(file, config, Tokenizer.from_path(table), tmp_path_factory.mktemp("configs"))
    pair = load(str(file), device="cpu", dtype="float32", tokenizer=str(table)), reference
    for case in (
        Case(channels, "euler", 136, 104, steps=3, strength=1.0),
        Case(channels, "dpm++2m", 64, 72, steps=5, strength=0.6),
        Case(channels, "ddim", 150, 90, steps=3, strength=0.8, padding=8),
    ):
        greatest, mean = difference(*pictures(case, pair))
        assert greatest <= 1, f"{case}: {greatest} levels apart"
        assert mean <= 0.01, f"{case}: {mean} levels apart on average"
