"""The adversarial term: who learns what from whom, and that a run with it is a run like any other."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sdscratch.models.config import AutoencoderConfig
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.metrics import METRICS, read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.engine.state import FOLDER, newest_checkpoint, open_checkpoint
from sdscratch.training.tasks.adversarial import (
    DELTA,
    AdversarialAutoencoder,
    AdversarialLoss,
    Discriminator,
    Scores,
    adaptive_weight,
    discriminator_loss,
)
from sdscratch.training.tasks.autoencoder import Autoencoder, ReconstructionLoss
from support.training import CPU, Squares

TINY = AutoencoderConfig(8, (1, 2), 1, 4, 1.0, 4)
SIZE = 4  # of a batch


def model() -> AdversarialAutoencoder:
    torch.manual_seed(0)
    return AdversarialAutoencoder(Autoencoder(TINY), Discriminator(channels=16))


def reconstruction() -> ReconstructionLoss:
    return ReconstructionLoss(Squares(size=32), TINY, CPU, size=SIZE, seed=0)


def gradients(module: torch.nn.Module) -> list[Tensor]:
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


def same(gradients: list[Tensor], references: list[Tensor]) -> None:
    """Equal but for rounding: some are sums that cancel, so it is relative to the largest of all."""
    largest = max(float(reference.abs().max()) for reference in references)
    assert_close(gradients, references, rtol=0.0, atol=1e-5 * largest)


def test_one_backward_pass_gives_each_its_own_gradient() -> None:
    """Reference: the two passes of Esser et al.'s two optimisers, each with the other held fixed."""
    together, apart = model(), model()
    AdversarialLoss(reconstruction(), 0.5)(together, 0, range(SIZE))[0].backward()

    picture, noise = reconstruction().inputs(0, range(SIZE))
    output, posterior = apart.autoencoder(picture, noise)
    value = reconstruction().of(output, posterior, picture)[0]
    adversarial = -apart.critic(output).mean()
    last = apart.autoencoder.decoder.conv_out.weight
    norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (value, adversarial)]
    (value + 0.5 * norms[0] / (norms[1] + DELTA) * adversarial).backward()
    same(gradients(together.autoencoder), gradients(apart.autoencoder))

    apart.zero_grad()
    real, made = apart.critic(picture), apart.critic(output.detach())
    hinge = torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + made, min=0).mean()
    (hinge / 2).backward()
    same(gradients(together.critic), gradients(apart.critic))
    assert gradients(apart.autoencoder) == []


def test_the_hinge_lets_go_of_what_is_judged_well_enough() -> None:
    scores = [torch.tensor(values, requires_grad=True) for values in ([0.0], [-2.0, 0.5], [3.0, 0.5])]
    loss = discriminator_loss(Scores(*scores))
    loss.backward()
    assert float(loss.detach()) == 0.5 * (0.25 + 0.75)
    assert [score.grad if score.grad is None else score.grad.tolist() for score in scores] == [
        None,
        [0.0, 0.25],
        [0.0, -0.25],
    ]


def test_both_terms_pull_equally_hard_at_the_last_layer() -> None:
    last = torch.nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)))
    one, other = (last * 3.0).square().sum(), (last * torch.arange(5.0)).sum()
    weight = adaptive_weight(one, other, last, CPU)
    strengths = [torch.autograd.grad(term, last)[0].norm() for term in (one, weight * other)]
    assert_close(strengths[0], strengths[1], rtol=1e-5, atol=0)
    assert last.grad is None
    nothing = adaptive_weight((last * 3.0).square().sum(), (last * 0.0).sum(), last, CPU)
    assert float(nothing) == 1e4


def test_a_score_sees_70_pixels_of_its_picture_alone() -> None:
    discriminator = Discriminator(channels=16)
    for layer in discriminator.layers:
        if isinstance(layer, torch.nn.GroupNorm):
            layer.forward = lambda x: x  # type: ignore[method-assign]  # it sees the whole picture
    pictures = torch.randn(2, 3, 160, 160, requires_grad=True)
    scores = discriminator(pictures)
    assert scores.shape == (2, 1, 18, 18)
    scores[0, 0, 9, 9].backward()
    assert pictures.grad is not None
    assert pictures.grad[1].abs().max() == 0
    rows = pictures.grad[0].abs().sum(dim=(0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_scores_do_not_depend_on_the_company() -> None:
    discriminator = Discriminator(channels=16)
    pictures = torch.randn(3, 3, 64, 64)
    assert_close(discriminator(pictures)[1:2], discriminator(pictures[1:2]))


def recipe(steps: int) -> Recipe:
    return Recipe(Budget(steps=steps), 2e-3, batch=SIZE, warm_up=1, save_seconds=None)


def test_the_discriminator_learns_to_tell_and_the_autoencoder_still_learns(tmp_path: Path) -> None:
    train(model(), AdversarialLoss(reconstruction(), 0.2), recipe(40), tmp_path, CPU)
    records = read_metrics(tmp_path / METRICS)
    assert {"l1", "adversarial", "critic", "balance", "psnr"} <= records[0].keys()

    def typical(name: str, part: slice) -> float:
        return median(record[name] for record in records[part])

    assert typical("critic", slice(-10, None)) < 0.8 < 0.95 < records[0]["critic"]
    assert typical("psnr", slice(-10, None)) > typical("psnr", slice(0, 10)) + 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_run_has_its_discriminator_and_moments_again(tmp_path: Path, workers: int) -> None:
    recipes = [Recipe(Budget(steps=n), 2e-3, batch=SIZE, workers=workers, decay="constant") for n in (3, 6)]
    loss = AdversarialLoss(reconstruction(), 0.5)
    whole, stopped, resumed = model(), model(), model()
    train(whole, loss, recipes[1], tmp_path / "whole", CPU)
    train(stopped, loss, recipes[0], tmp_path / "parts", CPU)
    torch.nn.init.zeros_(resumed.critic.layers[0].weight)
    train(resumed, loss, recipes[1], tmp_path / "parts", CPU)
    assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    path = newest_checkpoint(tmp_path / "parts" / FOLDER)
    assert path is not None
    with open_checkpoint(path) as file:
        assert "optimiser.exp_avg_sq.critic.layers.0.weight" in file.tensors
