"""The autoencoder's training: its losses, its measure, and the normalisation folded into its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from sdscratch.embedded.composer import Composer
from sdscratch.models.config import AutoencoderConfig
from sdscratch.training.autoencoder import (
    Autoencoder,
    fold_normalisation,
    held_out_psnr,
    latent_statistics,
    psnr,
    reconstruction_loss,
    save_grid,
    train_autoencoder,
)
from sdscratch.training.loop import Budget, Recipe
from support.sprites import disc_table

TINY = AutoencoderConfig(
    channels=8, multipliers=(1, 2), residual_blocks=1, latent_channels=4, latent_scale=1.0, norm_groups=4
)


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(disc_table(), size=16)


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(TINY)


def test_psnr_of_a_known_error() -> None:
    picture = torch.zeros(2, 3, 8, 8)
    output = picture.clone()
    output[1] += 0.2  # a tenth of the range: 20 dB
    values = psnr(output, picture)
    assert values[0] >= 100.0
    assert float(values[1]) == pytest.approx(20.0, abs=1e-4)


def test_the_loss_sees_blur_that_the_mean_error_does_not() -> None:
    stripes = torch.ones(1, 3, 8, 8)
    stripes[..., ::2] = -1.0
    even = torch.full_like(stripes, 0.0)  # off by 1 everywhere, as is the next
    shifted = stripes + torch.ones_like(stripes)
    assert reconstruction_loss(even, stripes) > reconstruction_loss(shifted, stripes) + 1.0
    assert reconstruction_loss(stripes, stripes) == 0


def test_folding_normalises_latents_and_changes_no_picture(composer: Composer, model: Autoencoder) -> None:
    with torch.no_grad():  # far from normal, and each channel otherwise
        model.encoder.quant.weight.mul_(7.0)
        model.encoder.quant.bias.add_(torch.arange(8.0))
    picture = composer.draw(composer.scenes(0, range(3)))
    noise = torch.randn(3, 4, 8, 8)
    before, posterior = model(picture, noise)
    mean, std = latent_statistics(composer, model.encoder, 128)
    fold_normalisation(model, mean, std)
    after, normalised = model(picture, noise)
    assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert_close(normalised.mean, (posterior.mean - mean[:, None, None]) / std[:, None, None])
    new_mean, new_std = latent_statistics(composer, model.encoder, 128)
    assert_close(new_mean, torch.zeros(4), rtol=0, atol=1e-4)
    assert_close(new_std, torch.ones(4), rtol=1e-4, atol=0)


def recipe(steps: int) -> Recipe:
    return Recipe(Budget(steps=steps), 5e-3, warm_up=5, ema=0.5)


def test_training_betters_reconstructions(composer: Composer, model: Autoencoder, tmp_path: Path) -> None:
    first = train_autoencoder(model, composer, recipe(1), tmp_path, batch=8)
    before = held_out_psnr(composer, first, 64)
    trained = train_autoencoder(model, composer, recipe(40), tmp_path, batch=8)
    assert held_out_psnr(composer, trained, 64) > before + 0.5


def test_a_frozen_encoder_stays_while_the_decoder_learns(
    composer: Composer, model: Autoencoder, tmp_path: Path
) -> None:
    model.encoder.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = train_autoencoder(model, composer, recipe(2), tmp_path, batch=4).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("encoder."))
    assert not torch.equal(after["decoder.conv_out.weight"], before["decoder.conv_out.weight"])


def test_a_grid_is_read_row_by_row(tmp_path: Path) -> None:
    levels = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 2, 4)
    save_grid(levels, tmp_path / "grid.png", columns=3)
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == (12, 4)
    assert [grid.getpixel((x, y))[0] for y in (0, 2) for x in (0, 4, 8)] == [0, 64, 128, 191, 255, 255]
