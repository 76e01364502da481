"""Approximations: exact where they say so, cheaper elsewhere, and each picture's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdscratch.bench.random_model import random_model
from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.fast.unet import FastUNet
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ModelConfig
from support.checkpoints import SMALLER, TINY

SMALL = {"width": 64, "height": 64, "steps": 4, "seed": 5, "sampler": "euler"}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def pixels(pipeline: Pipeline, **options: object) -> np.ndarray:
    return np.asarray(pipeline.txt2img("a dog", **SMALL | options))


# --- DeepCache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, SMALLER], ids=["like SD 1.x", "of two levels"])
def test_a_pass_on_its_own_deep_features_is_the_whole_pass(config: ModelConfig) -> None:
    network = FastUNet(random_model("", config).load("unet", "cpu", torch.float32))
    shape = (2, config.unet.latent_channels, 9, 8)
    x, context = torch.randn(shape), Conditioning(torch.randn(2, 7, config.unet.context))
    other = torch.randn(shape)
    times = torch.tensor([500.0, 500.0])
    whole, deep = network.predict(x, times, context)
    assert torch.equal(whole, network(x, times, context))
    again, kept = network.predict(x, times, context, deep)
    assert torch.equal(again, whole)
    assert kept is deep
    # of another latent only the outermost groups see anything
    mixed, _ = network.predict(other, times, context, deep)
    assert not torch.allclose(mixed, whole)
    assert not torch.allclose(mixed, network(other, times, context))


def test_the_deeper_groups_are_left_out() -> None:
    network = FastUNet(random_model("", TINY).load("unet", "cpu", torch.float32))
    ran: list[str] = []
    for name, module in network.named_modules():
        if name.count(".") in (1, 2):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    x, times = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    context = Conditioning(torch.randn(1, 7, TINY.unet.context))
    _, deep = network.predict(x, times, context)
    assert len(ran) > 40
    ran.clear()
    network.predict(x, times, context, deep)
    assert sorted({name.rsplit(".", 1)[0] for name in ran}) == ["down.0", "up.11"]


def test_every_third_pass_is_whole_and_so_is_one_on_another_batch() -> None:
    whole: list[bool] = []

    def network(x: Tensor, times: Tensor, told: Conditioning, deep: Tensor | None) -> tuple[Tensor, Tensor]:
        whole.append(deep is None)
        return x, x if deep is None else deep

    predict = deep_cached(network, 3)
    for n in (2, 2, 2, 2, 2, 1, 1, 2):
        predict(torch.zeros(n, 4, 2, 2), torch.zeros(n), Conditioning(torch.zeros(n, 7, 5)))
    assert whole == [True, False, False, True, False, True, False, True]


def test_deep_caching_changes_a_picture_a_little_and_1_is_exact(pipeline: Pipeline) -> None:
    exact = pixels(pipeline)
    assert np.array_equal(exact, pixels(pipeline, deep_cache=1))
    cached = pixels(pipeline, deep_cache=2)
    assert not np.array_equal(exact, cached)
    assert (
        np.abs(exact.astype(int) - cached).mean()
        < np.abs(exact.astype(int) - pixels(pipeline, seed=6)).mean()
    )


def test_what_is_kept_of_one_picture_never_meets_another(pipeline: Pipeline) -> None:
    options = SMALL | {"deep_cache": 3, "cfg_interval": "1:9"}
    together = pipeline.txt2img("a dog", batch_count=2, batch_size=2, **options)
    for index, picture in enumerate(together):
        assert np.array_equal(np.asarray(picture), pixels(pipeline, **options | {"seed": 5 + index}))


# --- The guidance interval -------------------------------------------------------------------------------


def test_guidance_acts_above_the_lower_end_and_up_to_the_upper() -> None:
    one, other = torch.ones(1), torch.zeros(1)
    denoise = guided_between(0.5, 2.0, lambda x, sigma: one, lambda x, sigma: other)
    guided = {sigma: bool(denoise(one, sigma)) for sigma in (2.1, 2.0, 1.0, 0.51, 0.5, 0.1)}
    assert guided == {2.1: False, 2.0: True, 1.0: True, 0.51: True, 0.5: False, 0.1: False}


def test_an_interval_of_everything_is_exact_and_one_of_nothing_is_no_guidance(pipeline: Pipeline) -> None:
    assert np.array_equal(pixels(pipeline), pixels(pipeline, cfg_interval=":"))
    unguided = pixels(pipeline, cfg_scale=1.0)
    assert np.array_equal(unguided, pixels(pipeline, cfg_interval="100:200"))
    some = pixels(pipeline, cfg_interval="0.28:5.42")
    assert not np.array_equal(some, unguided)
    assert not np.array_equal(some, pixels(pipeline))
    assert np.array_equal(unguided, pixels(pipeline, cfg_scale=1.0, cfg_interval="0.28:5.42"))
