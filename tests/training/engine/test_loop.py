"""The loop: resuming changes nothing, every way to share a batch is the same, files stay whole."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sdscratch.errors import CheckpointError, SdscratchError, UsageError
from sdscratch.training.engine import state as state_module
from sdscratch.training.engine.ema import EMA
from sdscratch.training.engine.loop import Progress, train
from sdscratch.training.engine.metrics import METRICS, Metrics, read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe, learning_rate
from sdscratch.training.engine.replicas import Replicas, split
from sdscratch.training.engine.rng import generator, seed_of
from sdscratch.training.engine.state import FOLDER, checkpoints, load_weights, newest_checkpoint
from sdscratch.training.engine.step import backward
from support.training import CPU

BATCH = 12


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1))


def loss(module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
    x = torch.randn(BATCH, 3, generator=generator("cpu", 1, step))[indices.start : indices.stop]
    return (module(x)[:, 0] - x.prod(dim=1)).square().mean(), {"mean": x.mean()}


def recipe(steps: int, **changes: object) -> Recipe:
    options = {"warm_up": 3, "save_seconds": None, "batch": BATCH} | changes
    return Recipe(Budget(steps=steps), 1e-2, **options)  # type: ignore[arg-type]


def newest(folder: Path) -> bytes:
    path = newest_checkpoint(folder / FOLDER)
    assert path is not None
    return path.read_bytes()


def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, halves = network(), network()
    train(whole, loss, recipe(20), tmp_path / "whole", CPU)

    def stopping(module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(module, step, indices)

    with pytest.raises(SystemExit) as end:
        train(halves, stopping, recipe(20), tmp_path / "halves", CPU)
    assert end.value.code == 128 + signal.SIGTERM
    resumed = network()
    nn.init.zeros_(resumed[0].weight)  # what counts is in the checkpoint
    assert train(resumed, loss, recipe(20), tmp_path / "halves", CPU) == 20
    assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    (one,), (other,) = (list(checkpoints(tmp_path / name / FOLDER)[:1]) for name in ("whole", "halves"))
    with state_module.open_checkpoint(one) as a, state_module.open_checkpoint(other) as b:
        assert any(name.startswith("optimiser.exp_avg_sq.") for name in a.tensors)
        for name in a.tensors.keys() - {"checksum"}:  # it covers the seconds
            assert torch.equal(a.read(name), b.read(name)), name
    records = [read_metrics(tmp_path / name / METRICS) for name in ("whole", "halves")]
    assert [record["step"] for record in records[1]] == list(range(1, 21))
    assert [record["loss"] for record in records[0]] == [record["loss"] for record in records[1]]


def test_ctrl_c_saves_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    def stopping(module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        for _ in range({3: 1, 8: 2}.get(step, 0)):
            os.kill(os.getpid(), signal.SIGINT)
        return loss(module, step, indices)

    for done in (4, 4):  # the step in hand is finished; at the second time it is not
        with pytest.raises(KeyboardInterrupt):
            train(network(), stopping, recipe(20), tmp_path, CPU)
        assert load_weights(tmp_path, network()) == done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_left_to_others_afterwards(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    train(network(), loss, recipe(1), tmp_path, CPU)
    assert signal.getsignal(number) is before


def test_training_descends_and_tells_how_far_it_is(tmp_path: Path) -> None:
    module = network()
    before = loss(module, 999, range(BATCH))[0].detach()
    told: list[Progress] = []
    train(module, loss, recipe(200, ema=0.5), tmp_path, CPU, show=told.append)
    assert loss(module, 999, range(BATCH))[0] < 0.6 * before
    assert (told[-1].step, told[-1].share) == (200, 1.0)
    assert told[-1].metrics["loss"] == read_metrics(tmp_path / METRICS)[-1]["loss"]


def test_the_average_is_what_is_left_loaded_and_shown(tmp_path: Path) -> None:
    module, loaded = network(), network()
    shown: list[Tensor] = []
    plan = recipe(6, ema=0.5, validation_steps=2)
    train(module, loss, plan, tmp_path, CPU, validate=lambda step: shown.append(module[0].weight.clone()))
    assert load_weights(tmp_path, loaded) == 6
    assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)
    assert len(shown) == 3
    assert torch.equal(shown[-1], module[0].weight)
    plain = network()
    train(plain, loss, recipe(6, ema=None), tmp_path / "plain", CPU)
    assert not torch.equal(plain[0].weight, module[0].weight)
    assert_close(load_weights(tmp_path / "plain", loaded), 6)
    assert_close(loaded.state_dict(), plain.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="train there first"):
        load_weights(tmp_path / "nowhere", loaded)


def test_a_gradient_that_is_not_finite_ends_the_run_and_is_never_saved(tmp_path: Path) -> None:
    def broken(module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        value, metrics = loss(module, step, indices)
        return value * (float("nan") if step == 5 else 1.0), metrics

    with pytest.raises(SdscratchError, match="step 6 is not finite"):
        train(network(), broken, recipe(9, save_steps=4), tmp_path, CPU)
    assert load_weights(tmp_path, network()) == 4


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = network()
    train(whole, loss, recipe(9), tmp_path / "whole", CPU)
    folder = tmp_path / "run" / FOLDER
    with pytest.raises(SdscratchError):
        train(network(), failing_at(8), recipe(9, save_steps=4), tmp_path / "run", CPU)
    data = bytearray(checkpoints(folder)[0].read_bytes())
    data[-100] ^= 1
    checkpoints(folder)[0].write_bytes(data)
    (folder / "step-00000007.safetensors").write_bytes(bytes(data[: len(data) // 2]))
    (folder / ".sdscratch-0123.part").write_bytes(b"half")
    module = network()
    train(module, loss, recipe(9), tmp_path / "run", CPU)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert_close(module.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert not list(folder.glob("*.part"))


def failing_at(step: int) -> object:
    def failing(module: nn.Module, now: int, indices: range) -> tuple[Tensor, Metrics]:
        if now == step:
            raise SdscratchError("no")
        return loss(module, now, indices)

    return failing


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(network(), loss, recipe(3), tmp_path, CPU)
    before = newest(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module, "write_safetensors", full)
    with pytest.raises(SdscratchError, match="no space is left"):
        train(network(), loss, recipe(5), tmp_path, CPU)
    assert newest(tmp_path) == before
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train(network(), loss, recipe(2), tmp_path, CPU)
    with pytest.raises(CheckpointError, match="another network"):
        train(nn.Sequential(nn.Linear(3, 1)), loss, recipe(4), tmp_path, CPU)
    with pytest.raises(CheckpointError, match="another network"):
        load_weights(tmp_path, nn.Linear(3, 1))
    with pytest.raises(CheckpointError, match="another network or optimiser"):
        train(network(), loss, recipe(4, ema=None), tmp_path, CPU)


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    train(network(), loss, recipe(9, save_steps=2, keep=3), tmp_path, CPU)
    assert [path.name[5:13] for path in checkpoints(tmp_path / FOLDER)] == [
        "00000009",
        "00000008",
        "00000006",
    ]


@pytest.mark.parametrize(("workers", "accumulate"), [(1, 1), (2, 1), (3, 2), (1, 4)])
def test_however_a_batch_is_shared_the_gradient_is_the_same(workers: int, accumulate: int) -> None:
    module, reference = network(), network()
    value, _ = loss(reference, 5, range(BATCH))
    value.backward()
    metrics = backward(Replicas(module, workers), loss, 5, range(BATCH), accumulate)
    assert_close(metrics["loss"], value.detach())
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        assert_close(one.grad, other.grad)


def test_replicas_share_weights() -> None:
    replicas = Replicas(network(), 3)
    with torch.no_grad():
        next(replicas.modules[0].parameters()).fill_(3.0)
    assert all((next(replica.parameters()) == 3.0).all() for replica in replicas.modules)


def test_what_cannot_be_shared_out_is_refused() -> None:
    assert split(range(4, 10), 3) == [range(4, 6), range(6, 8), range(8, 10)]
    with pytest.raises(UsageError, match="7 cannot be split into 2"):
        split(range(7), 2)
    with pytest.raises(UsageError, match="3 workers"):
        recipe(1, batch=8, workers=3)


def test_no_two_purposes_have_the_same_seed() -> None:
    seeds = {seed_of(name, step, index) for name in ("a", "b") for step in range(50) for index in range(50)}
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 5000  # torch's CPU generator takes no more of them
    assert seed_of(1, "23") != seed_of("1", 23) != seed_of(12, "3")


@pytest.mark.parametrize(
    ("decay", "shares"),
    [("constant", (1.0, 1.0, 1.0)), ("linear", (1.0, 0.51, 0.02)), ("cosine", (1.0, 0.51, 0.02))],
)
def test_the_learning_rate_rises_then_falls_to_its_final_share(
    decay: str, shares: tuple[float, float, float]
) -> None:
    plan = recipe(1000, warm_up=10, decay=decay, decay_from=0.5)
    assert learning_rate(plan, 0, 0.0) == pytest.approx(1e-3)
    rates = [learning_rate(plan, int(1000 * x), x) / 1e-2 for x in (0.4, 0.75, 1.0)]
    assert rates == pytest.approx(shares)


def test_a_budget_counts_steps_or_seconds() -> None:
    assert Budget(steps=10).share(5, 1e6) == 0.5
    assert Budget(seconds=60).share(10**6, 90) == 1.0
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
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with ema.in_place():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 0.5


def test_a_metrics_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text(json.dumps({"step": 1, "loss": 0.5}) + '\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}]
