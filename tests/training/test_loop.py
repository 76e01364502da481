"""The loop: stopping and resuming changes nothing, workers split a batch, schedules end where they should."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.training.ema import EMA
from sdscratch.training.loop import Budget, Recipe, learning_rate, load_weights, train
from sdscratch.training.team import Team, share_seed


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1))


def loss(module: nn.Module, step: int, worker: int) -> tuple[Tensor, dict[str, float]]:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(share_seed(1, step, worker)))
    return (module(x)[:, 0] - x.prod(dim=1)).square().mean(), {"largest": float(x.max())}


def recipe(steps: int, **changes: float) -> Recipe:
    return Recipe(Budget(steps=steps), 1e-2, warm_up=3, save_every=1e9, **changes)  # type: ignore[arg-type]


def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, halves = network(), network()
    average = train(whole, loss, recipe(20), tmp_path / "whole")

    def stopping(module: nn.Module, step: int, worker: int) -> tuple[Tensor, dict[str, float]]:
        if step == 8 and worker == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(module, step, worker)

    with pytest.raises(SystemExit) as end:
        train(halves, stopping, recipe(20), tmp_path / "halves")
    assert end.value.code == 128 + signal.SIGTERM
    resumed = network()
    nn.init.zeros_(resumed[0].weight)  # what counts is in the checkpoint
    again = train(resumed, loss, recipe(20), tmp_path / "halves")
    for one, other in ((whole, resumed), (average, again)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "halves/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [10, 20]


def test_sigterm_is_left_to_others_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(network(), loss, recipe(1), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_training_descends(tmp_path: Path) -> None:
    module = network()
    before = loss(module, 999, 0)[0].detach()
    train(module, loss, recipe(150), tmp_path)
    assert loss(module, 999, 0)[0] < 0.5 * before


def test_the_average_is_what_is_loaded(tmp_path: Path) -> None:
    average = train(network(), loss, recipe(5, ema=0.5), tmp_path)
    loaded = network()
    assert load_weights(tmp_path, loaded) == 5
    assert_close(loaded.state_dict(), average.state_dict(), rtol=0, atol=0)
    with pytest.raises(SdscratchError, match="train there first"):
        load_weights(tmp_path / "nowhere", loaded)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    def broken(module: nn.Module, step: int, worker: int) -> tuple[Tensor, dict[str, float]]:
        value, figures = loss(module, step, worker)
        return value * float("nan"), figures

    with pytest.raises(SdscratchError, match="step 0 is not finite"):
        train(network(), broken, recipe(5), tmp_path)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_weights_and_leave_the_mean_gradient(workers: int) -> None:
    module, reference = network(), network()
    team = Team(module, workers)
    values = [loss(reference, 5, worker)[0] for worker in range(workers)]
    torch.stack(values).mean().backward()
    figures = team.descend(loss, 5)
    assert figures["loss"] == pytest.approx(float(torch.stack(values).detach().mean()))
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        assert_close(one.grad, other.grad)
    with torch.no_grad():
        next(module.parameters()).fill_(3.0)
    assert all((next(replica.parameters()) == 3.0).all() for replica in team.replicas)


def test_no_two_shares_have_the_same_seed() -> None:
    seeds = {share_seed(s, step, worker) for s in range(3) for step in range(50) for worker in range(4)}
    assert len(seeds) == 3 * 50 * 4


def test_the_learning_rate_rises_then_falls_to_its_final_share() -> None:
    plan = Recipe(Budget(steps=1000), 1.0, warm_up=10, decay_from=0.5)
    assert learning_rate(plan, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(plan, 400, 0.4) == 1.0
    assert learning_rate(plan, 750, 0.75) == pytest.approx(0.51)
    assert learning_rate(plan, 1000, 1.0) == pytest.approx(plan.final_share)


def test_a_budget_counts_steps_or_seconds() -> None:
    assert Budget(steps=10).progress(5, 1e6) == 0.5
    assert Budget(seconds=60).progress(10**6, 90) == 1.0
    for wrong in ({}, {"steps": 1, "seconds": 1.0}):
        with pytest.raises(UsageError):
            Budget(**wrong)


def test_the_average_is_the_exponential_mean_of_the_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = EMA(module, decay=0.9)
    expected = 1.0
    for step, value in enumerate([2.0, -1.0, 4.0, 0.5] * 30):
        nn.init.constant_(module.weight, value)
        ema.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.module.weight) == pytest.approx(expected, rel=1e-5)
    assert not ema.module.weight.requires_grad
