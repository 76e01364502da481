"""The second pass: what it is made of, put together by hand; what is told of it; what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sdscratch.diffusion.noise.seeded import Noise
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.generation.generate import generate
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.generation.requests import Picture, Progress, Request
from sdscratch.images import Record
from sdscratch.images.metadata.infotext import parse_infotext
from sdscratch.options import GenerateOptions, ResolvedOptions, changed
from support.upscalers import TINY_RRDB, random_tensors, write_pth

ASKED = {"width": 64, "height": 72, "steps": 3, "seed": 7, "sampler": "euler", "cfg_scale": 2.0}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upscalers") / "4x-tiny.pth"
    return write_pth(path, random_tensors(TINY_RRDB, "ESRGAN"))


def last(pipeline: Pipeline, options: ResolvedOptions, **given: Any) -> list[Progress]:
    return list(pipeline.steps(options, **given))


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("name", ["lanczos", "Nearest"])
def test_in_pixels_it_is_image_to_image_of_the_enlarged_picture(pipeline: Pipeline, name: str) -> None:
    small = pipeline.txt2img("an owl", **ASKED)
    filters = {"lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
    large = small.resize((96, 104), filters[name])  # 1.5 × 72 is 108, rounded down
    others = ASKED | {"width": 96, "height": 104}
    by_hand = pipeline.img2img(large, "an owl", strength=0.67, **others)
    hires = {"hires": 1.5, "hires_upscaler": name, "hires_strength": 0.67}
    assert same(pipeline.txt2img("an owl", **ASKED, **hires), by_hand)


def test_a_network_enlarges_in_its_place(pipeline: Pipeline, upscaler: Path) -> None:
    hires = {"hires": 2, "hires_upscaler": str(upscaler), "hires_strength": 0.5}
    drawn = pipeline.txt2img("an owl", **ASKED, **hires)
    small = pipeline.txt2img("an owl", **ASKED)
    large = pipeline.second_pass.upscaler(str(upscaler)).run(small)
    assert large.size == (256, 288)
    large = large.resize((128, 144), Image.Resampling.LANCZOS)
    by_hand = pipeline.img2img(large, "an owl", strength=0.5, **ASKED | {"width": 128, "height": 144})
    assert same(drawn, by_hand)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("Latent", {"mode": "bilinear"}), ("latent-bicubic-antialiased", {"mode": "bicubic", "antialias": True}),
     ("Latent (nearest-exact)", {"mode": "nearest-exact"})],
)  # fmt: skip
def test_of_latents_it_is_the_web_uis_procedure(pipeline: Pipeline, name: str, mode: dict[str, Any]) -> None:
    """Noise of the same seeds for the larger size, and as many steps as were asked for, of more."""
    asked = GenerateOptions("an owl", like="a1111", **ASKED)
    small = last(pipeline, pipeline.resolve(asked))[-1].latent
    latent = F.interpolate(small, size=(18, 16), **mode)
    noise = Noise([7], (4, 18, 16), kind="nv")()
    steps, strength = 2, 0.6
    path = make_sigma_schedule(pipeline.sampling.schedule, "euler", None, int(steps / strength), like="a1111")
    sigmas = path.sigmas[-steps - 1 :]
    second = changed(asked, width=128, height=144)
    prompt, negative = pipeline.encode_prompts.of(pipeline.resolve(second))
    from sdscratch.generation.denoise import make_denoiser

    denoise = make_denoiser(pipeline.sampling.unet, path, pipeline.resolve(second), prompt, negative, 1)
    x = latent + sigmas[0] * noise
    for sigma, lower in itertools.pairwise(sigmas):  # Euler, equation 1 of Karras et al.
        x = x + (x - denoise(x, sigma)) / sigma * (lower - sigma)
    hires = {"hires": 2, "hires_upscaler": name, "hires_steps": steps, "hires_strength": strength}
    progress = last(pipeline, pipeline.resolve(changed(asked, **hires)))
    assert [each.done for each in progress] == [0, 1, 2, 3, 4, 5]
    assert {each.total for each in progress} == {5}
    assert torch.allclose(progress[-1].latent, x, rtol=1e-4, atol=1e-4)


def test_in_a_batch_each_is_what_it_is_alone(pipeline: Pipeline, upscaler: Path) -> None:
    for name in ("latent", str(upscaler)):
        asked = ASKED | {"hires": 2, "hires_upscaler": name, "hires_sampler": "euler_a", "hires_steps": 2}
        both = pipeline.txt2img("an owl", batch_count=2, batch_size=2, **asked)
        assert same(both[1], pipeline.txt2img("an owl", **asked | {"seed": 8}))


def test_a_sampler_that_chooses_its_steps_draws_each_alone(pipeline: Pipeline) -> None:
    asked = ASKED | {"hires": 1.25, "hires_upscaler": "lanczos", "hires_sampler": "dpm_adaptive"}
    asked |= {"hires_strength": 0.3, "cfg_scale": 1.0, "height": 64}
    both = pipeline.txt2img("an owl", batch_count=2, batch_size=2, **asked)
    assert same(both[1], pipeline.txt2img("an owl", **asked | {"seed": 8}))


def test_what_the_second_pass_is_asked_it_does(pipeline: Pipeline) -> None:
    asked = ASKED | {"hires": 1.5}
    plain = pipeline.txt2img("an owl", **asked)
    for other in (
        {"hires_prompt": "a dog"},
        {"hires_negative_prompt": "a dog"},
        {"hires_cfg_scale": 5.0},
        {"hires_sampler": "heun"},
        {"hires_scheduler": "karras"},
        {"hires_steps": 5},
        {"hires_strength": 1.0},
    ):
        assert not same(plain, pipeline.txt2img("an owl", **asked, **other)), other
    assert same(plain, pipeline.txt2img("an owl", **asked, hires_prompt="an owl", hires_sampler="Euler"))


def test_at_no_strength_the_picture_is_only_enlarged(pipeline: Pipeline) -> None:
    asked = ASKED | {"hires": 1.5, "hires_upscaler": "lanczos", "hires_strength": 0.0}
    assert pipeline.txt2img("an owl", **asked).size == (96, 104)


def record_of(pipeline: Pipeline, **asked: Any) -> Record:
    request = Request(pipeline.resolve(GenerateOptions("an owl", **ASKED | asked)))
    (picture,) = [event for event in generate(pipeline, [request]) if isinstance(event, Picture)]
    return picture.record()


def test_records_and_infotext_tell_both_passes(pipeline: Pipeline, upscaler: Path) -> None:
    record = record_of(
        pipeline, hires=1.5, hires_upscaler=str(upscaler), hires_steps=2, hires_prompt="a dog, a cat"
    )
    assert record.upscaler is not None
    assert record.upscaler.name == record.options.hires_upscaler == "4x-tiny"  # no path
    assert Record.from_json(record.to_json()) == record
    told = parse_infotext(record.infotext()).parameters
    assert told["Size"] == "64x72"
    assert told["Denoising strength"] == "0.7"
    assert told["Hires upscale"] == "1.5"
    assert told["Hires steps"] == "2"
    assert told["Hires upscaler"] == "4x-tiny"
    assert told["Hires prompt"] == "a dog, a cat"
    latent = record_of(pipeline, hires=2, hires_upscaler="latent-nearest-exact", hires_strength=0.4)
    assert latent.upscaler is None
    assert parse_infotext(latent.infotext()).parameters["Hires upscaler"] == "Latent (nearest-exact)"
    plain = json.loads(record_of(pipeline).to_json())
    assert not [name for name in plain["options"] if "hires" in name]


def test_what_cannot_be_is_refused_before_anything_is_drawn(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="--hires-steps is of a second pass"):
        GenerateOptions("an owl", hires_steps=5)
    with pytest.raises(UsageError, match=r"hires is 0.5, but must be from 1 to 16"):
        GenerateOptions("an owl", hires=0.5)
    with pytest.raises(UsageError, match="no sampler is called 'nothing'"):
        GenerateOptions("an owl", hires=2, hires_sampler="nothing")
    with pytest.raises(CheckpointError, match="there is no upscaler nothing"):
        pipeline.resolve(GenerateOptions("an owl", hires=2, hires_upscaler="nothing"))
    with pytest.raises(UsageError, match="for pictures drawn from noise"):
        pipeline.img2img(Image.new("RGB", (64, 64)), "an owl", hires=2)
