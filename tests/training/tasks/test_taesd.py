"""`train taesd`: a tiny decoder comes nearer to a model's own, survives a stop, and draws its previews."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.taesd import open_taesd
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.images import read_picture
from sdscratch.models.config import AutoencoderConfig, TinyDecoderConfig
from sdscratch.models.taesd import TinyDecoder
from sdscratch.options import GenerateOptions
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.tasks.latents import Latents
from sdscratch.training.tasks.taesd import DistillationLoss, save_taesd, tiny_config
from support.checkpoints import TINY
from support.cli import Result, sdscratch
from support.shapes_folder import write_pictures
from support.training import CPU

FIXED = ["--train-batch-size", 4, "--workers", 1, "--device", "cpu", "--lr-warmup-steps", 1, "--channels", 8]
OPTIONS = {"steps": 2, "seed": 5, "width": 64, "height": 64}


def random_latents(step: int, indices: range) -> Latents:
    rng = torch.Generator().manual_seed(step)
    return Latents(torch.randn(len(indices), 4, 6, 6, generator=rng), ("",) * len(indices))


def colours(latents: Tensor) -> Tensor:
    """A decoder that shows the first three channels, twice as large."""
    return torch.tanh(latents[:, :3]).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_its_shape_is_taesds_for_stable_diffusion_and_follows_other_autoencoders() -> None:
    assert tiny_config(AutoencoderConfig(), 64) == TinyDecoderConfig()
    other = tiny_config(AutoencoderConfig(multipliers=(1, 2), latent_channels=6), 8)
    assert other == TinyDecoderConfig(6, 8, (3, 1))


def test_training_brings_it_near_to_what_the_decoder_shows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TinyDecoder(TinyDecoderConfig(4, 16, (1, 1)))
    plan = Recipe(Budget(steps=300), 3e-3, batch=8, warm_up=5, ema=0.9)
    train(network, DistillationLoss(random_latents, colours, CPU), plan, tmp_path, CPU)
    latents = random_latents(10_000, range(8)).values
    with torch.no_grad():
        error = (network(latents) - colours(latents)).square().mean()
    assert error < 0.1 * colours(latents).square().mean()


def test_the_loss_is_the_same_for_any_split_of_a_batch() -> None:
    def rows(step: int, indices: range) -> Latents:
        values = random_latents(step, range(6)).values[indices.start : indices.stop]
        return Latents(values, ("",) * len(indices))

    network = TinyDecoder(TinyDecoderConfig(4, 8, (1, 1)))
    loss = DistillationLoss(rows, colours, CPU)
    parts = [loss(network, 1, indices)[0] for indices in (range(3), range(3, 6))]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(network, 1, range(6))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_saved_is_what_is_opened(dtype: torch.dtype, tmp_path: Path) -> None:
    config = TinyDecoderConfig(8, 8, (2, 1, 1))
    network = TinyDecoder(config)
    save_taesd(tmp_path / "it.safetensors", config, network, dtype, {"steps": 3})
    autoencoder = AutoencoderConfig(multipliers=(1, 2, 4), latent_channels=8)
    opened = open_taesd(str(tmp_path / "it.safetensors"), autoencoder)
    assert opened.config == config
    state = opened.load(torch.device("cpu"), torch.float32).state_dict()
    assert all(
        torch.equal(state[name], tensor.to(dtype).float()) for name, tensor in network.state_dict().items()
    )


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[object]:
    pictures = write_pictures(tmp_path_factory.mktemp("data") / "pictures")
    return [pictures, "--model", tiny_model, "--resolution", 64, *FIXED]


def taesd(common: list[object], output: Path, steps: int, *more: object) -> Result:
    return sdscratch("train", "taesd", *common, "--output", output, "--max-train-steps", steps, *more)


@pytest.fixture(scope="module")
def trained(common: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    result = taesd(common, run, 60, "--learning-rate", 0.01, "--mixed-precision", "no", "--json")
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["path"] == str(run / "taesd.safetensors")
    return run


def test_a_run_leaves_what_every_run_leaves(trained: Path, tiny_model: Path) -> None:
    names = {each.name for each in trained.iterdir()}
    assert names == {
        "cache",
        "checkpoints",
        "config.toml",
        "loss.png",
        "metrics.jsonl",
        "samples",
        "taesd.safetensors",
    }
    records = read_metrics(trained / "metrics.jsonl")
    assert [line["step"] for line in records] == list(range(1, 61))
    assert records[-1]["psnr"] > records[0]["psnr"] + 3.0
    with safe_open(trained / "taesd.safetensors", "pt") as file:
        about = json.loads(file.metadata()["sdscratch.provenance"])
    assert (about["steps"], about["base_hash"]) == (60, open_model(tiny_model).hash())
    opened = open_taesd(str(trained / "taesd.safetensors"), TINY.autoencoder)
    assert opened.config == tiny_config(TINY.autoencoder, 8)
    (grid,) = (trained / "samples").iterdir()
    assert read_picture(grid).size == (4 * 64, 2 * 64)  # the decoder's pictures above its own


def psnr(pipeline: Pipeline) -> float:
    options = pipeline.resolve(GenerateOptions("a dog", **OPTIONS))
    *_, last = pipeline.steps(options)
    import numpy as np

    shown, exact = (np.asarray(f(last.latent)[0], dtype=float) for f in (pipeline.preview, pipeline.decode))
    return float(10 * np.log10(255**2 / np.mean((shown - exact) ** 2)))


def test_its_previews_are_nearer_to_the_picture_than_an_untrained_ones(
    trained: Path, tiny_model: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = tiny_config(TINY.autoencoder, 8)
    save_taesd(tmp_path / "raw.safetensors", config, TinyDecoder(config), torch.float32, {})
    files = [trained / "taesd.safetensors", tmp_path / "raw.safetensors"]
    good, raw = (
        psnr(load(str(tiny_model), device="cpu", dtype="float32", taesd=str(path))) for path in files
    )
    assert good > raw + 1.0


def test_a_run_that_was_stopped_goes_on_bit_for_bit(common: list[object], tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    steady = ["--lr-scheduler", "constant", "--checkpointing-steps", 2]
    assert taesd(common, whole, 4, *steady).code == 0
    assert taesd(common, halves, 2, *steady).code == 0
    assert taesd(common, halves, 4, *steady, "--resume-from-checkpoint", "latest").code == 0
    one, other = (load_file(run / "taesd.safetensors") for run in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)
