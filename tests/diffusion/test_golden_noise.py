"""Noise that A1111's generators and k-diffusion's Brownian tree drew themselves."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from sdscratch.diffusion.noise import BatchNoise, BrownianNoise, Noise, Philox, noise_sources, slerp
from support.shared import shared_path


@cache
def golden(name: str) -> Any:
    return json.loads(shared_path("golden", name).read_text())


def test_philox_draws_to_the_last_bit_what_an_nvidia_gpu_draws() -> None:
    for row in golden("philox.json")["philox"]:
        draw = Philox(row["seed"])
        for values in row["calls"]:
            ours = draw(tuple(row["shape"])).flatten()
            assert torch.equal(ours, torch.tensor(values, dtype=torch.float32))


def test_every_call_moves_the_counter_by_one_whatever_its_size() -> None:
    row = golden("philox.json")["philox_mixed_shapes"]
    draw = Philox(row["seed"])
    for call in row["calls"]:
        ours = draw(tuple(call["shape"])).flatten()
        assert torch.equal(ours, torch.tensor(call["values"], dtype=torch.float32))


def test_variation_seeds_ensd_and_seed_resizing() -> None:
    for row in golden("philox.json")["image_rng"]:
        sides = [row.get(f"seed_resize_from_{side}", 0) // 8 for side in "hw"]
        noise = Noise(
            row["seeds"],
            tuple(row["shape"]),
            kind=row["source"].lower(),
            variation_seeds=row.get("subseeds", ()),
            variation_strength=row.get("subseed_strength", 0.0),
            ensd=row["ensd"],
            resize_from=(sides[0], sides[1]) if all(sides) else None,
        )
        for values in row["draws"]:
            theirs = torch.tensor(values, dtype=torch.float32)
            torch.testing.assert_close(noise().flatten(), theirs, rtol=0, atol=1e-6)


def test_slerp() -> None:
    for row in golden("philox.json")["slerp"]:
        low, high, theirs = (
            torch.tensor(row[key], dtype=torch.float32).reshape(row["shape"])
            for key in ("low", "high", "out")
        )
        torch.testing.assert_close(slerp(row["t"], low, high), theirs, rtol=1e-5, atol=1e-6)


def test_brownian_intervals_are_those_of_the_reference_tree() -> None:
    table = golden("brownian.json")
    for row in table["single"]:
        noise = BrownianNoise([row["seed"]], tuple(row["shape"][1:]), row["sigma_min"], row["sigma_max"])
        for pair in [*row["pairs"], *row["karras_steps"], *row["pairs"]]:
            ours = noise(pair["sigma"], pair["sigma_next"]).flatten()
            np.testing.assert_allclose(ours.numpy(), pair["noise"], rtol=0, atol=1e-6)


def test_brownian_intervals_of_batches() -> None:
    table = golden("brownian.json")
    low, high = table["single"][0]["sigma_min"], table["single"][0]["sigma_max"]
    several, one = table["list_of_seeds"], table["one_seed_batch2"]
    sources = [
        (BrownianNoise(several["seeds"], tuple(several["shape"][1:]), low, high), several),
        (BrownianNoise([one["seed"]], tuple(one["shape"]), low, high), one),
    ]
    for noise, row in sources:
        for pair in row["pairs"]:
            ours = noise(pair["sigma"], pair["sigma_next"])
            assert list(ours.shape) == row["shape"]
            np.testing.assert_allclose(ours.flatten().numpy(), pair["noise"], rtol=0, atol=1e-6)


def test_brownian_noise_of_adjoining_intervals_adds_up() -> None:
    noise = BrownianNoise([3, 4], (4, 8, 8), 0.03, 14.6)
    whole = noise(9.0, 1.0) * math.sqrt(8.0)
    parts = noise(9.0, 4.0) * math.sqrt(5.0) + noise(4.0, 1.0) * math.sqrt(3.0)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)
    assert float(noise(9.0, 1.0).std()) == pytest.approx(1.0, abs=0.1)


def test_a_picture_s_brownian_noise_depends_on_its_seed_alone() -> None:
    together = BrownianNoise([3, 4], (4, 8, 8), 0.03, 14.6)(9.0, 1.0)
    assert torch.equal(together[1], BrownianNoise([4], (4, 8, 8), 0.03, 14.6)(9.0, 1.0)[0])


def test_comfyui_draws_one_noise_for_the_batch_and_begins_anew_for_samplers() -> None:
    noise = BatchNoise(7, 2, (4, 8, 8), then="cpu")
    start, first, second = noise(), noise(2.0, 1.0), noise(1.0, 0.5)
    generator = torch.Generator("cpu").manual_seed(7)
    assert torch.equal(start, torch.randn((2, 4, 8, 8), generator=generator))
    generator = torch.Generator("cpu").manual_seed(8)
    assert torch.equal(first, torch.randn((2, 4, 8, 8), generator=generator))
    assert torch.equal(second, torch.randn((2, 4, 8, 8), generator=generator))
    gpu = BatchNoise(7, 2, (4, 8, 8))
    assert torch.equal(gpu(), start)
    assert torch.equal(gpu(), Philox(7)((2, 4, 8, 8)))


@pytest.mark.parametrize("like", ["sdscratch", "a1111", "comfyui"])
def test_sde_samplers_get_intervals_and_the_others_what_follows_the_start(like: str) -> None:
    sigmas = (14.6, 3.0, 0.5, 0.0)
    start, then = noise_sources("euler_a", sigmas, [1, 2], (4, 8, 8), like=like)
    assert start is then
    start, then = noise_sources("dpm++sde", sigmas, [1, 2], (4, 8, 8), like=like)
    assert start().shape == then(14.6, 3.0).shape == (2, 4, 8, 8)
    assert torch.equal(then(14.6, 3.0), then(14.6, 3.0))
