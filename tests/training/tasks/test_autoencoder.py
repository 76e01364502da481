"""The autoencoder's training: its losses, its measure, and the normalisation folded into its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Gaussian
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.tasks.autoencoder import (
    TERMS,
    Autoencoder,
    Reconstruction,
    ReconstructionLoss,
    fold_normalisation,
    held_out_psnr,
    latent_statistics,
    psnr,
)
from sdscratch.training.tasks.samples import save_grid
from support.training import CPU, Squares

TINY = AutoencoderConfig(
    channels=8, multipliers=(1, 2), residual_blocks=1, latent_channels=4, latent_scale=1.0, norm_groups=4
)


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


def test_the_gradient_term_sees_blur_that_the_mean_error_does_not() -> None:
    stripes = torch.ones(1, 3, 8, 8)
    stripes[..., ::2] = -1.0
    none = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    even, shifted = (  # off by 1 everywhere, both
        Reconstruction(output, stripes, none) for output in (torch.zeros_like(stripes), stripes + 1.0)
    )
    assert TERMS["l1"](even) == TERMS["l1"](shifted)
    assert TERMS["gradient"](even) > TERMS["gradient"](shifted) + 1.0
    assert all(TERMS[name](Reconstruction(stripes, stripes, none)) == 0 for name in TERMS)


def test_folding_normalises_latents_and_changes_no_picture(model: Autoencoder) -> None:
    with torch.no_grad():  # far from normal, and each channel otherwise
        model.encoder.quant.weight.mul_(7.0)
        model.encoder.quant.bias.add_(torch.arange(8.0))
    picture = Squares().batch(0, range(3), CPU.device).pictures
    noise = torch.randn(3, 4, 8, 8)
    before, posterior = model(picture, noise)
    mean, std = latent_statistics(Squares(), model.encoder, CPU.device, 128)
    fold_normalisation(model, mean, std)
    after, normalised = model(picture, noise)
    assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert_close(normalised.mean, (posterior.mean - mean[:, None, None]) / std[:, None, None])
    new_mean, new_std = latent_statistics(Squares(), model.encoder, CPU.device, 128)
    assert_close(new_mean, torch.zeros(4), rtol=0, atol=1e-4)
    assert_close(new_std, torch.ones(4), rtol=1e-4, atol=0)


def train_for(steps: int, model: Autoencoder, folder: Path) -> None:
    plan = Recipe(Budget(steps=steps), 5e-3, batch=8, warm_up=5, ema=0.5)
    train(model, ReconstructionLoss(Squares(), TINY, CPU, size=8, seed=1), plan, folder, CPU)


def test_training_betters_reconstructions(model: Autoencoder, tmp_path: Path) -> None:
    before = held_out_psnr(Squares(), model, CPU.device, 64)
    train_for(40, model, tmp_path)
    assert held_out_psnr(Squares(), model, CPU.device, 64) > before + 0.5


def test_a_frozen_encoder_stays_while_the_decoder_learns(model: Autoencoder, tmp_path: Path) -> None:
    model.encoder.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_for(2, model, tmp_path)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("encoder."))
    assert not torch.equal(after["decoder.conv_out.weight"], before["decoder.conv_out.weight"])


def test_the_loss_is_the_weighted_sum_of_its_terms_and_the_same_for_any_split(model: Autoencoder) -> None:
    loss = ReconstructionLoss(Squares(), TINY, CPU, size=6, seed=1, weights={"l1": 2.0, "kl": 0.1, "l2": 0.0})
    value, metrics = loss(model, 4, range(6))
    assert set(metrics) == {"l1", "kl", "psnr"}
    assert_close(value, 2.0 * metrics["l1"] + 0.1 * metrics["kl"])
    parts = [loss(model, 4, indices)[0] for indices in (range(2), range(2, 4), range(4, 6))]
    assert_close(torch.stack(parts).mean(), value)


def test_a_grid_is_read_row_by_row(tmp_path: Path) -> None:
    levels = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 2, 4)
    save_grid(levels, tmp_path / "grid.png", columns=3)
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == (12, 4)
    assert [grid.getpixel((x, y))[0] for y in (0, 2) for x in (0, 4, 8)] == [0, 64, 128, 191, 255, 255]
