"""`--like`: what a picture starts from, goes through and is told, as each tool has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.diffusion.noise import Philox
from sdscratch.errors import UsageError
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.options import SD1_DEFAULTS, GenerateOptions
from support.pictures import gradient

SMALL: dict[str, Any] = {"width": 64, "height": 72, "steps": 4, "seed": 3, "sampler": "euler"}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def resolved(pipeline: Pipeline, **options: Any) -> Any:
    return pipeline.resolve(GenerateOptions("a dog", **SMALL | options))


def beginning(pipeline: Pipeline, **options: Any) -> torch.Tensor:
    return next(pipeline.steps(resolved(pipeline, **options))).latent


@pytest.mark.parametrize("like", CONVENTIONS)
def test_every_tool_draws_and_only_our_own_way_is_the_default(pipeline: Pipeline, like: str) -> None:
    own = np.asarray(pipeline.txt2img("a (red:1.4) dog", **SMALL))
    other = np.asarray(pipeline.txt2img("a (red:1.4) dog", like=like, **SMALL))
    assert np.array_equal(own, other) == (like == "sdscratch")


@pytest.mark.parametrize(
    ("like", "noise", "syntax"),
    [
        ("sdscratch", "cpu", "a1111"),
        ("a1111", "nv", "a1111"),
        ("forge", "nv", "a1111"),
        ("comfyui", "cpu", "comfyui"),
        ("diffusers", "cpu", "plain"),
        ("kohya", "nv", "kohya"),
        ("sdcpp", "nv", "sdcpp"),
    ],
)
def test_what_is_not_asked_is_the_tools(like: str, noise: str, syntax: str) -> None:
    options = GenerateOptions("a dog", like=like).resolve(SD1_DEFAULTS, seed=0)
    assert (options.noise, options.prompt_syntax) == (noise, syntax)
    asked = GenerateOptions("a dog", like=like, noise="cpu", prompt_syntax="plain")
    options = asked.resolve(SD1_DEFAULTS, seed=0)
    assert (options.noise, options.prompt_syntax) == ("cpu", "plain")


@pytest.mark.parametrize(
    ("like", "asked", "skipped"), [("a1111", 2, 1), ("a1111", 1, 0), ("diffusers", 1, 1)]
)
def test_layers_to_skip_are_counted_as_the_tool_does(like: str, asked: int, skipped: int) -> None:
    options = GenerateOptions("a dog", like=like, clip_skip=asked).resolve(SD1_DEFAULTS, seed=0)
    assert options.clip_skip == skipped


@pytest.mark.parametrize("like", ["a1111", "forge", "sdcpp"])
def test_the_web_uis_begin_with_an_nvidia_gpus_noise_times_the_first_sigma(
    pipeline: Pipeline, like: str
) -> None:
    first = pipeline.path(resolved(pipeline, like=like)).sigmas[0]
    unit = Philox(3)((4, 9, 8))
    torch.testing.assert_close(beginning(pipeline, like=like)[0], unit * first, rtol=1e-6, atol=0)


def test_comfyui_begins_with_noise_of_the_whole_variance(pipeline: Pipeline) -> None:
    first = pipeline.path(resolved(pipeline, like="comfyui")).sigmas[0]
    unit = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(3))
    expected = unit * (1 + first**2) ** 0.5
    torch.testing.assert_close(beginning(pipeline, like="comfyui"), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("like", "strength", "steps"),
    [
        ("sdscratch", 0.5, 10),
        ("a1111", 0.5, 11),
        ("a1111", 1.0, 20),
        ("comfyui", 0.5, 20),
        ("diffusers", 0.29, 5),
    ],
)
def test_steps_of_image_to_image_are_counted_as_the_tool_does(
    pipeline: Pipeline, like: str, strength: float, steps: int
) -> None:
    options = resolved(pipeline, like=like, strength=strength, steps=20)
    assert len(pipeline.path(options, from_init=True).timesteps) == steps


@pytest.mark.parametrize("like", CONVENTIONS)
def test_strength_0_keeps_the_picture_whatever_the_tool(pipeline: Pipeline, like: str) -> None:
    init = gradient(64, 64)
    kept = [
        np.asarray(pipeline.img2img(init, "a dog", strength=0.0, like=name)) for name in (like, "sdscratch")
    ]
    assert np.array_equal(*kept)


def test_a_tool_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="like is 'midjourney', but must be one of sdscratch, a1111"):
        GenerateOptions("a dog", like="midjourney")
