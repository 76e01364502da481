"""LoRAs in the training loop: what a checkpoint holds, resuming, sharing a batch, learning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.models.conditioning import Conditioning
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.gradient_checkpointing import recompute_blocks
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.run.lora_options import LoraPlan, parse_targets
from sdscratch.training.tasks.diffusion import DenoisingLoss, tokenized
from sdscratch.training.tasks.latents import FreshLatents, encode_with
from sdscratch.training.tasks.lora import lora_module
from support.training import CPU, Squares

BATCH = 4
BOTH = LoraPlan(rank=4, targets=parse_targets("all"), text_encoder=True)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelFiles:
    return open_model(tiny_model)


def descend(
    model: ModelFiles,
    folder: Path,
    steps: int,
    plan: LoraPlan = BOTH,
    distributed: DistributedContext = CPU,
    *,
    recompute: bool = False,
    **recipe: object,
) -> dict[str, Tensor]:
    """Train to step `steps`, going on from what `folder` holds; the adapters."""
    module, adapters = lora_module(model, plan, distributed, seed=1)
    if recompute:
        recompute_blocks(module)
    encode = encode_with(model.load("encoder", "cpu", torch.float32), 0.18215, CPU)
    ids = tokenized(model.tokenizer, CPU.device)
    text = model.load("text", "cpu", distributed.precision)

    def words(captions):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            return ids(captions) if plan.text_encoder else Conditioning(text(ids(captions)))

    latents = FreshLatents(Squares(size=64), encode, CPU.device)
    loss = DenoisingLoss(model.config.schedule, words, latents, distributed, size=BATCH, seed=2)
    options = {"batch": BATCH, "warm_up": 1, "decay": "constant", "ema": None} | recipe
    # a larger ε: or else rounding decides the first steps of weights with next to no gradient
    options |= {"eps": 1e-4}
    train(module, loss, Recipe(Budget(steps=steps), 5e-3, **options), folder, distributed)  # type: ignore[arg-type]
    return adapters.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_run_in_two_parts_is_the_same_run_bit_for_bit(
    model: ModelFiles, tmp_path: Path, average: float | None
) -> None:
    whole = descend(model, tmp_path / "whole", 4, ema=average)
    descend(model, tmp_path / "parts", 2, ema=average)
    assert same(descend(model, tmp_path / "parts", 4, ema=average), whole)
    metrics = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [r["loss"] for r in metrics[0]] == [r["loss"] for r in metrics[1]]


def test_a_checkpoint_holds_the_adapters_and_their_optimiser_alone(model: ModelFiles, tmp_path: Path) -> None:
    plan = LoraPlan(rank=2)
    adapters = descend(model, tmp_path, 1, plan)
    (path,) = (tmp_path / "checkpoints").iterdir()
    held = load_file(path)
    weights = {name for name in held if name.startswith("weight.")}
    assert len(weights) == 2 * len(plan.chosen(model.config))
    assert all("adapter.lora_" in name for name in held if name != "checksum")
    trained = sum(t.numel() for name, t in adapters.items() if not name.endswith("alpha"))
    assert sum(t.numel() for name, t in held.items() if name in weights) == trained


def test_any_way_to_compute_a_batch_gives_the_same_adapters(model: ModelFiles, tmp_path: Path) -> None:
    expected = descend(model, tmp_path / "plain", 2)
    for name, options in (
        ("threads", {"workers": 2}),
        ("accumulated", {"batch": 2, "accumulate": 2}),
        ("recomputed", {"recompute": True}),
    ):
        found = descend(model, tmp_path / name, 2, **options)  # type: ignore[arg-type]
        for key in expected:
            assert_close(found[key], expected[key], rtol=1e-3, atol=2e-4, msg=f"{name}: {key}")


@pytest.mark.parametrize(("precision", "text_encoder"), [(torch.float32, False), (torch.bfloat16, True)])
def test_training_descends(
    model: ModelFiles, tmp_path: Path, precision: torch.dtype, text_encoder: bool
) -> None:
    plan = LoraPlan(rank=8, text_encoder=text_encoder)
    distributed = DistributedContext(torch.device("cpu"), precision)
    adapters = descend(model, tmp_path, 16, plan, distributed)
    losses = [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert {tensor.dtype for tensor in adapters.values()} == {torch.float32}
