"""What `evaluate` measures: against references, by hand, and the same however it is run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sdscratch.diffusion.noise import Noise
from sdscratch.evaluation.quality import Quality, evaluate, part_bounds, ssim
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from sdscratch.training.dataset.source import Batch
from sdscratch.training.tasks.autoencoder import psnr
from support.checkpoints import SMALLER, ldm_tensors, self_contained, write_ldm

CAPTIONS = ("the dog", "a red apple", "", "the cat in the app")


def pictures(count: int, height: int = 64, width: int = 64) -> Tensor:
    """Smooth colours with some noise, in −1 to 1."""
    rng = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=rng) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=rng)).clamp(-1, 1)


def model(folder: Path, prediction: str = "epsilon", timesteps: int = 1000) -> Pipeline:
    config = replace(SMALLER, schedule=ScheduleConfig(timesteps=timesteps, prediction=prediction))  # type: ignore[arg-type]
    path = write_ldm(folder / "model.safetensors", ldm_tensors(config), self_contained(config))
    return load(str(path), device="cpu", dtype="float32")


def measured(pipeline: Pipeline, sizes: tuple[int, ...], seed: int = 0) -> Quality:
    shown = pictures(len(CAPTIONS))
    batches, start = [], 0
    for size in sizes:
        batches.append(Batch(shown[start : start + size], CAPTIONS[start : start + size]))
        start += size
    return list(evaluate(pipeline, batches, seed=seed))[-1]


@pytest.mark.parametrize("size", [(64, 64), (11, 11), (40, 97)])
def test_similarity_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    first = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    second = (0.7 * first + 0.1 + 0.2 * first.roll(1, -1)).clamp(-1, 1)
    luma = np.array([0.299, 0.587, 0.114])
    ours, decibels = ssim(second, first), psnr(second, first)
    for index in range(3):
        x, y = (((p[index].double().numpy().transpose(1, 2, 0) + 1) / 2) for p in (second, first))
        expected = structural_similarity(
            x @ luma, y @ luma, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ours[index]) == pytest.approx(expected, abs=1e-5)
        assert float(decibels[index]) == pytest.approx(
            peak_signal_noise_ratio(y, x, data_range=1.0), abs=1e-3
        )


def test_similarity_in_closed_form() -> None:
    # flat pictures have no structure, so that only (2xy + C₁)/(x² + y² + C₁) is left
    dark, light = torch.full((1, 3, 16, 16), -0.5), torch.full((1, 3, 16, 16), 0.5)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(ssim(dark, light)) == pytest.approx(expected, abs=1e-9)
    assert_close(ssim(pictures(4), pictures(4)), torch.ones(4).double())


def test_similarity_sees_what_leaves_the_range_as_its_end() -> None:
    shown = pictures(2)
    assert_close(ssim(3 * shown, shown), ssim((3 * shown).clamp(-1, 1), shown), rtol=0, atol=0)


def test_the_parts_of_the_timesteps_are_equal_and_whole() -> None:
    assert part_bounds(1000) == list(range(0, 1001, 100))
    assert part_bounds(25) == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25]
    assert part_bounds(3) == [0, 1, 2, 3]


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_loss_by_timestep_is_the_one_computed_by_hand(tmp_path: Path, prediction: str) -> None:
    # ten timesteps are ten parts of one, so that nothing is drawn but the noise
    pipeline = model(tmp_path, prediction, timesteps=10)
    quality = measured(pipeline, (4,), seed=7)
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 10) ** 2
    bars = np.cumprod(1 - betas)
    losses = np.zeros((4, 10))
    with torch.no_grad():
        for index, caption in enumerate(CAPTIONS):
            picture = pictures(len(CAPTIONS))[index : index + 1]
            latent = 0.5 * pipeline.networks["encoder"](picture).mean  # SMALLER's latent scale
            tokens = pipeline.files.tokenizer.encode(caption).padded(77, pipeline.files.tokenizer.pad)
            told = Conditioning(pipeline.networks["text"](torch.tensor([tokens])))
            noise = Noise([7 + index], tuple(latent.shape[1:]))
            for t in range(10):
                a, b, drawn = math.sqrt(bars[t]), math.sqrt(1 - bars[t]), noise()
                said = pipeline.networks["unet"](a * latent + b * drawn, torch.tensor([float(t)]), told)
                wanted = drawn if prediction == "epsilon" else a * drawn - b * latent
                losses[index, t] = float((said - wanted).square().mean())
    assert quality.prediction == prediction
    assert [part.loss for part in quality.by_timestep] == pytest.approx(losses.mean(0), rel=1e-4)
    assert [(part.first, part.last, part.weight) for part in quality.by_timestep] == [
        (t, t, 0.1) for t in range(10)
    ]
    assert quality.loss == pytest.approx(losses.mean(), rel=1e-4)


def test_a_pictures_figures_do_not_depend_on_its_batch_and_change_with_the_seed(tmp_path: Path) -> None:
    pipeline = model(tmp_path, "v")
    whole, parts = measured(pipeline, (4,)), measured(pipeline, (1, 3))
    assert (whole.pictures, parts.pictures) == (4, 4)
    assert parts.psnr == pytest.approx(whole.psnr, rel=1e-5)
    assert parts.ssim == pytest.approx(whole.ssim, rel=1e-5)
    assert [p.loss for p in parts.by_timestep] == pytest.approx([p.loss for p in whole.by_timestep], rel=1e-4)
    assert measured(pipeline, (4,)) == whole
    other = measured(pipeline, (4,), seed=1)
    assert other.psnr == whole.psnr
    assert other.loss != whole.loss


def test_parts_weigh_by_their_share_of_the_timesteps(tmp_path: Path) -> None:
    quality = measured(model(tmp_path, timesteps=25), (4,))
    assert [part.weight for part in quality.by_timestep] == [2 / 25, 3 / 25] * 5
    assert quality.loss == pytest.approx(sum(p.loss * p.weight for p in quality.by_timestep))


def test_figures_come_after_every_batch(tmp_path: Path) -> None:
    batches = [Batch(pictures(2), CAPTIONS[:2]), Batch(pictures(1), CAPTIONS[:1])]
    assert [quality.pictures for quality in evaluate(model(tmp_path), batches)] == [2, 3]
