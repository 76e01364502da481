"""Previews: an affine encoder's pictures come back exactly, any model's resemble what is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.checkpoints.model import open_model
from sdscratch.generation.pipeline import load
from sdscratch.generation.preview import Preview, fit_preview, known_pictures
from sdscratch.images import read_picture
from sdscratch.models.taesd import TinyDecoder
from sdscratch.options import GenerateOptions
from sdscratch.training.tasks.taesd import save_taesd, tiny_config
from support.checkpoints import TINY
from support.cli import sdscratch

WORDS = ("--size", "72x64", "--steps", 2, "--seed", 5, "--device", "cpu", "--dtype", "float32", "-q")


def test_of_an_encoder_that_is_linear_the_preview_is_the_inverse() -> None:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]

    def encode(picture: Tensor) -> Tensor:  # as many numbers as pixels: nothing is lost
        return torch.einsum("nchw,dc->ndhw", F.pixel_unshuffle(picture, 2), mixing) + 0.3

    preview = fit_preview(encode, downscale=2)
    picture = known_pictures(32)[:2].flip(3)
    assert F.mse_loss(preview(encode(picture)), picture) < 1e-4


def test_a_preview_has_the_pictures_size_order_and_orientation() -> None:
    matrix = torch.zeros(2 * 9 + 1, 3 * 4)
    matrix[4] = 1.0  # the first channel's middle neighbour, to every pixel
    matrix[18] = 0.1
    latents = torch.zeros(2, 2, 3, 5)
    latents[1, 0, 2, 4] = 0.5
    pixels = Preview(matrix, 2)(latents)
    assert pixels.shape == (2, 3, 6, 10)
    expected = torch.full((2, 3, 6, 10), 0.1)
    expected[1, :, 4:, 8:] = 0.6
    torch.testing.assert_close(pixels, expected)


def test_the_known_pictures_hold_colours_of_every_kind_and_are_always_the_same() -> None:
    pictures = known_pictures(24)
    assert torch.equal(pictures, known_pictures(24))
    assert torch.equal(pictures.amin((0, 2, 3)), torch.full((3,), -1.0))
    assert torch.equal(pictures.amax((0, 2, 3)), torch.full((3,), 1.0))


def test_without_a_tiny_decoder_the_embedded_models_previews_resemble_its_pictures(tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.symlink_to(open_model("default").path)
    pipeline = load(str(alone), device="cpu", dtype="float32")
    assert pipeline.taesd is None
    options = pipeline.resolve(GenerateOptions("a red apple", steps=10, seed=0))
    *_, last = pipeline.steps(options)
    shown, exact = (np.asarray(f(last.latent)[0], dtype=float) for f in (pipeline.preview, pipeline.decode))
    psnr = 10 * np.log10(255**2 / np.mean((shown - exact) ** 2))
    flat = 10 * np.log10(255**2 / np.mean((exact - exact.mean((0, 1))) ** 2))
    assert psnr > flat + 3.0


def test_the_file_shows_the_first_picture_after_every_step(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "preview.png"
    file.write_bytes(b"an older one")
    result = sdscratch(
        "txt2img", "a dog", "-m", tiny_model, *WORDS, "-o", tmp_path / "out.png", "--preview", file
    )
    assert result.code == 0, result.stderr
    assert read_picture(file).size == (72, 64)
    plain = sdscratch("txt2img", "a dog", "-m", tiny_model, *WORDS, "-o", tmp_path / "plain.png")
    assert plain.code == 0
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "out.png").read_bytes()


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny decoder for the tiny model that shows grey, whatever the latent."""
    config = tiny_config(TINY.autoencoder, 8)
    network = TinyDecoder(config)
    with torch.no_grad():
        network.conv_out.weight.zero_()
        network.conv_out.bias.fill_(0.25)
    save_taesd(tmp_path / "grey.safetensors", config, network, torch.float32, {})
    return tmp_path / "grey.safetensors"


def test_a_tiny_autoencoder_draws_the_preview_and_nothing_else(
    tiny_model: Path, tiny: Path, tmp_path: Path
) -> None:
    for name, more in {"plain": (), "with": ("--preview", tmp_path / "now.png", "--taesd", tiny)}.items():
        result = sdscratch(
            "txt2img", "a dog", "-m", tiny_model, *WORDS, "-o", tmp_path / f"{name}.png", *more
        )
        assert result.code == 0, result.stderr
    now = np.asarray(read_picture(tmp_path / "now.png"))
    assert now.shape == (64, 72, 3)
    assert set(now.flat) == {64}  # a quarter of 255
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "with.png").read_bytes()


def test_the_tiny_autoencoder_beside_a_model_draws_its_previews_unasked(
    tiny_model: Path, tiny: Path, tmp_path: Path
) -> None:
    model = tmp_path / "mine.safetensors"
    model.symlink_to(tiny_model)
    tiny.rename(tmp_path / "mine-taesd.safetensors")
    pipeline = load(str(model), device="cpu", dtype="float32")
    (shown,) = pipeline.preview(torch.zeros(1, TINY.unet.latent_channels, 8, 8))
    assert set(np.asarray(shown).flat) == {64}


def test_a_tiny_autoencoder_without_a_preview_or_with_another_models_latents_is_refused(
    tiny_model: Path, tiny: Path, tmp_path: Path
) -> None:
    alone = sdscratch("txt2img", "a dog", "-m", tiny_model, "--taesd", tiny)
    assert (alone.code, "--taesd draws with --decoder tiny and in --preview" in alone.stderr) == (2, True)
    out = tmp_path / "out.png"
    other = sdscratch("txt2img", "a dog", "--preview", tmp_path / "now.png", "--taesd", tiny, "-o", out)
    assert (other.code, "take one that is made for this model" in other.stderr) == (3, True)
    assert not out.exists()


def test_a_preview_that_is_no_pictures_name_is_refused_at_once(tmp_path: Path) -> None:
    result = sdscratch("txt2img", "a dog", "--preview", tmp_path / "preview.gif")
    assert result.code == 2
    assert "has no suffix of a picture" in result.stderr
