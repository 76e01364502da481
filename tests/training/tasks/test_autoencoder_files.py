"""Autoencoders as files: whatever form they have, the same networks; samples drawn as the pipeline draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError
from sdscratch.generation.pipeline import load
from sdscratch.images.tensors import to_tensor
from sdscratch.models.config import SD1, AutoencoderConfig
from sdscratch.training.tasks.autoencoder import Autoencoder
from sdscratch.training.tasks.autoencoder_files import autoencoder_of, open_autoencoder, save_autoencoder
from sdscratch.training.tasks.diffusion import tokenized
from sdscratch.training.tasks.samples import SampleGrid
from support.checkpoints import TINY, ldm_tensors, self_contained, write_diffusers, write_ldm
from support.training import CPU

PREFIX = "first_stage_model."
SMALL = AutoencoderConfig(channels=4, multipliers=(1, 2), residual_blocks=1, latent_channels=3, norm_groups=2)


def test_an_autoencoder_alone_is_read_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder(SMALL)
    save_autoencoder(tmp_path / "autoencoder.safetensors", model, torch.float32, {"steps": 3})
    files = open_autoencoder(str(tmp_path / "autoencoder.safetensors"))
    assert (files.config, files.model) == (SMALL, None)
    both = files.load_both(CPU.device)
    assert_close(both.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert all(weight.requires_grad for weight in both.parameters())


def form_model(folder: Path) -> Path:
    return write_ldm(folder / "model.safetensors", ldm_tensors(), self_contained())


def form_folder(folder: Path) -> Path:
    return write_diffusers(folder / "model", TINY, ldm_tensors())


@pytest.mark.parametrize("form", [form_model, form_folder])
def test_the_autoencoder_of_a_model_is_found(form: Callable[[Path], Path], tmp_path: Path) -> None:
    files = open_autoencoder(str(form(tmp_path)))
    assert files.model is not None
    expected = open_model(files.model.path).load("encoder", "cpu", torch.float32)
    assert_close(files.load("encoder", CPU.device).state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_what_is_no_whole_autoencoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    tensors: dict[str, Tensor] = {"encoder.conv_in.weight": torch.zeros(SD1.autoencoder.channels, 3, 3, 3)}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"no whole autoencoder: first_stage_model\.\S+ is missing"):
        open_autoencoder(str(path))
    save_file(tensors, path, {"sdscratch.autoencoder": "{"})
    with pytest.raises(CheckpointError, match=r"broken sdscratch\.autoencoder"):
        open_autoencoder(str(path))
    with pytest.raises(CheckpointError):
        open_autoencoder(str(tmp_path / "nothing.safetensors"))


def test_samples_are_what_the_pipeline_draws(tiny_model: Path) -> None:
    files = open_model(tiny_model)
    text, unet = (files.load(part, "cpu", torch.float32) for part in ("text", "unet"))
    words = tokenized(files.tokenizer, CPU.device)
    defaults = files.defaults.__class__(64, 64, 3, 4.0, "euler", "trailing")
    grid = SampleGrid(
        files.config,
        defaults,
        lambda prompt: text(words([prompt])),
        lambda: autoencoder_of(files).load("decoder", CPU.device),
        CPU,
    )
    drawn = grid.draw(unet, ["the dog", "a red apple"], seed=5)
    pipeline = load(str(tiny_model), device="cpu", dtype="float32")
    asked = {
        "width": 64,
        "height": 64,
        "steps": 3,
        "cfg_scale": 4.0,
        "sampler": "euler",
        "scheduler": "trailing",
    }
    for picture, prompt in zip(drawn, ("the dog", "a red apple"), strict=True):
        expected = to_tensor(pipeline.txt2img(prompt, seed=5, **asked))[0]  # in 255 levels
        assert (picture.clamp(-1, 1) - expected).abs().max() < 1.02 / 127.5
