"""All stages of the built-in model, a few steps each: what one hands on is what the next one takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from sdscratch.checkpoints.taesd import taesd_beside
from sdscratch.errors import SdscratchError
from sdscratch.generation.pipeline import load
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms import sampled, stages
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.folder import HARD_EXAMPLES, begin, export
from sdscratch.pictograms.hard_examples import hard_example_weights
from sdscratch.pictograms.mixtures import FULL
from sdscratch.pictograms.model import LARGE, SMALL, Shape
from sdscratch.pictograms.stages import Stages
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from support.sprites import disc_table
from support.training import CPU


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on few pictures, and learn words from few captions."""
    monkeypatch.setattr(embedded, "CAPTIONS_READ", 500)
    monkeypatch.setattr(stages, "held_out_psnr", partial(stages.held_out_psnr, count=4))
    monkeypatch.setattr(stages, "latent_statistics", partial(stages.latent_statistics, count=16))


def made(folder: Path, shape: Shape) -> Stages:
    return Stages(folder, shape, Composer(disc_table(), shape.size, FULL, seed=1), CPU)


def recipe(steps: int) -> Recipe:
    return Recipe(Budget(steps=steps), 1e-3, batch=2, warm_up=1, ema=0.5)


@pytest.mark.full
def test_from_nothing_to_a_grown_model_with_its_tiny_decoder(tmp_path: Path) -> None:
    small, large = made(tmp_path / "small", SMALL), made(tmp_path / "large", LARGE)
    small.autoencoder(recipe(2))
    small.diffusion(recipe(2))
    seed = tmp_path / "small.safetensors"
    assert export(small.folder, SMALL, seed) == 2
    assert not taesd_beside(seed).exists()  # that stage was left out

    before = large.autoencoder(recipe(2), seed)
    large.diffusion(recipe(1), seed)
    large.diffusion(recipe(3), seed)  # goes on where it was stopped
    assert [line["step"] for line in read_metrics(large.folder / "diffusion" / "metrics.jsonl")] == [1, 2, 3]
    after = large.refine(recipe(3))
    assert after != before
    taught = large.decoder(recipe(2))
    assert taught != after
    large.taesd(recipe(2))

    path = tmp_path / "model.safetensors"
    assert export(large.folder, LARGE, path) == 3
    pipeline = load(str(path), device="cpu", dtype="float32")
    assert pipeline.txt2img("a red disc", seed=0, steps=2).size == (LARGE.size, LARGE.size)
    assert pipeline.taesd is not None
    assert pipeline.taesd.path == taesd_beside(path)
    latent = torch.zeros(1, LARGE.autoencoder.latent_channels, 16, 16)
    (preview,) = pipeline.preview(latent)
    assert preview.size == (LARGE.size, LARGE.size)


def test_a_run_from_a_model_of_its_size_shows_most_what_that_knows_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path / "first", SMALL)
    first.autoencoder(recipe(1))
    first.diffusion(recipe(1))
    assert not (first.folder / HARD_EXAMPLES).exists()  # from nothing, there is nothing to go by
    model = tmp_path / "model.safetensors"
    export(first.folder, SMALL, model)

    further = made(tmp_path / "further", SMALL)
    begin(further.folder, SMALL, model)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "unexplained_variance", lambda *_: {"dog": 1.0, "cat": 0.0})
        further.diffusion(recipe(1), model)
    kept = (further.folder / HARD_EXAMPLES).read_text()
    assert json.loads(kept) == hard_example_weights({"dog": 1.0, "cat": 0.0})

    seen: list[Mapping[str, float]] = []
    weighted = Composer.weighted
    monkeypatch.setattr(Composer, "weighted", lambda self, often: seen.append(often) or weighted(self, often))
    further.diffusion(recipe(2), model)  # goes on, and does not measure again
    assert seen == [json.loads(kept)]
    assert (further.folder / HARD_EXAMPLES).read_text() == kept


def test_the_decoder_alone_learns_what_the_sampler_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "GROUP", 2)
    monkeypatch.setattr(sampled, "LEFT", {2: 1})
    first = made(tmp_path / "first", SMALL)
    first.autoencoder(recipe(1))
    first.diffusion(recipe(2))
    model = tmp_path / "model.safetensors"
    export(first.folder, SMALL, model)

    further = made(tmp_path / "further", SMALL)
    begin(further.folder, SMALL, model)
    unchanged = tmp_path / "unchanged.safetensors"
    assert export(further.folder, SMALL, unchanged) == 2  # steps of the model that it began with
    assert load(str(unchanged)).files.hash() == load(str(model)).files.hash()

    further.decoder(recipe(2))
    further.decoder(recipe(3))  # goes on where it was stopped
    metrics = read_metrics(further.folder / "sampled" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert (further.folder / "sampled" / "preview.png").is_file()
    taught = tmp_path / "taught.safetensors"
    assert export(further.folder, SMALL, taught) == 2
    (old, old_diffusion, _), (new, new_diffusion, _) = (embedded.open_trained(p) for p in (model, taught))
    torch.testing.assert_close(new.encoder.state_dict(), old.encoder.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(new_diffusion.state_dict(), old_diffusion.state_dict(), rtol=0, atol=0)
    assert not torch.equal(new.decoder.conv_out.weight, old.decoder.conv_out.weight)


def test_a_folder_without_a_model_teaches_no_decoder(tmp_path: Path) -> None:
    empty = made(tmp_path, SMALL)
    with pytest.raises(SdscratchError, match="train the autoencoder first"):
        empty.decoder(recipe(1))
    empty.autoencoder(recipe(1))
    with pytest.raises(SdscratchError, match="train text encoder and U-Net first"):
        empty.decoder(recipe(1))
