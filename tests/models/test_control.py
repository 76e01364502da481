"""Controls: what they add to the U-Net is what diffusers adds, in the plain pass and in the fast one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.bench.random_model import random_model
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import weights
from sdscratch.fast.unet import FastUNet
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.control import Residuals
from sdscratch.models.unet import UNet
from support.checkpoints import TINY, our_tensors
from support.controls import PLACES, FakeControl
from support.diffusion import relative_error

CONFIG = TINY.unet
SIZE = (9, 8)  # rounded up at two of the levels


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(n, CONFIG.in_channels, *SIZE, generator=generator(0))
    return x, torch.linspace(100.5, 900.0, n), torch.randn(n, 7, CONFIG.context, generator=generator(1))


def control(n: int = 1, places: tuple[str, ...] = PLACES, seed: int = 2) -> FakeControl:
    hint = torch.randn(n, 1, *SIZE, generator=generator(seed))
    return FakeControl(CONFIG, hint, torch.rand(n, generator=generator(seed)) + 0.5, places)


def networks() -> tuple[UNet, Any]:
    """Ours and diffusers' of the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UNet2DConditionModel

    state = our_tensors(TINY)["unet"]
    with torch.device("meta"):
        ours, theirs = (
            UNet(CONFIG),
            UNet2DConditionModel.from_config(to_folder(TINY, 512)["unet/config.json"]),
        )
    ours.load_state_dict(state, assign=True)
    names = {w.diffusers.removeprefix("unet/"): state[w.name] for w in weights(TINY) if w.part == "unet"}
    theirs.load_state_dict(names, assign=True)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("places", [("skips", "middle"), ("levels",)], ids=["ControlNet", "adapter"])
def test_residuals_are_added_where_diffusers_adds_them(places: tuple[str, ...]) -> None:
    ours, theirs = networks()
    x, timesteps, context = inputs()
    added = control(places=places)
    residuals = added(x, timesteps, context)
    given: dict[str, Any] = {"down_intrablock_additional_residuals": [r.clone() for r in residuals.levels]}
    if residuals.skips:
        given = {
            "down_block_additional_residuals": residuals.skips,
            "mid_block_additional_residual": residuals.middle,
        }
    with torch.inference_mode():
        wanted = theirs(x, timesteps, context, **given).sample
        plain = ours(x, timesteps, Conditioning(context))
        steered = ours(x, timesteps, Conditioning(context, controls=(added,)))
    assert relative_error(steered, wanted) <= 1e-5
    assert relative_error(plain, wanted) > 0.01


@pytest.mark.parametrize("places", [PLACES, *[(place,) for place in PLACES]], ids=str)
def test_the_fast_pass_adds_the_same(places: tuple[str, ...]) -> None:
    unet = random_model("", TINY).load("unet", "cpu", torch.float32)
    assert isinstance(unet, UNet)
    x, timesteps, context = inputs()
    told = Conditioning(context, controls=(control(places=places), control(2, places, seed=5)))
    with torch.inference_mode():
        wanted = unet(x, timesteps, told)
        whole, deep = FastUNet(unet).predict(x, timesteps, told)
        assert torch.equal(whole, wanted)
        again, _ = FastUNet(unet).predict(x, timesteps, told, deep)
        assert torch.equal(again, wanted)
        assert not torch.allclose(unet(x, timesteps, Conditioning(context)), wanted)


@pytest.mark.parametrize("places", [("skips", "middle"), PLACES], ids=["ControlNet", "with features"])
def test_what_guidance_doubles_is_steered_row_by_row(places: tuple[str, ...]) -> None:
    exact = random_model("", TINY).load("unet", "cpu", torch.float32)
    network = FastUNet(random_model("", TINY).load("unet", "cpu", torch.bfloat16))  # type: ignore[arg-type]
    x, timesteps, context = inputs(4)
    x, timesteps = torch.cat([x[:2], x[:2]]), torch.cat([timesteps[:2], timesteps[:2]])
    added = replace(control(4, places), weight=torch.tensor([0.0, 0.0, 1.0, 1.5]))  # the prompt's half alone
    told = Conditioning(context, controls=(added,))
    seen: list[int] = []
    network.down[0][0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    with torch.inference_mode():
        wanted = exact(x, timesteps, told)
        ours = network(x.bfloat16(), timesteps, told.to(torch.bfloat16))
        alone = exact(x[:2], timesteps[:2], Conditioning(context[:2]))
    assert seen == [4 if "levels" in places else 2]  # what features differ in is not computed once
    assert relative_error(ours, wanted) <= 0.05
    assert relative_error(wanted[:2], alone) <= 1e-5


def test_residuals_of_several_controls_add_up() -> None:
    one, two = torch.ones(1), torch.full((1,), 2.0)
    both = Residuals((one, one), None, (one,)) + Residuals((two, two), two)
    assert [tensor.item() for tensor in both.skips] == [3.0, 3.0]
    assert both.middle is two
    assert both.levels == (one,)
    with pytest.raises(ValueError, match="shorter"):
        _ = Residuals((one, one)) + Residuals((two,))


def test_a_conditioning_changes_its_controls_tensors_with_its_own() -> None:
    told = Conditioning(torch.zeros(1, 7, 3), controls=(control(1),))
    (wide,) = told.expand(3).controls
    assert [len(tensor) for tensor in wide.tensors] == [3, 3]
    (half,) = told.to(torch.bfloat16).controls
    assert {tensor.dtype for tensor in half.tensors} == {torch.bfloat16}
    (own,) = told.clone().controls
    assert own.tensors[0].data_ptr() != told.controls[0].tensors[0].data_ptr()
    assert len(told.tensors()) == 5 + 2
    both = Conditioning.stack([told, told.expand(2)])
    assert [len(tensor) for tensor in both.tensors() if tensor is not None] == [3, 3, 3]


@pytest.mark.parametrize("places", [PLACES, *[(place,) for place in PLACES]], ids=str)
def test_a_control_of_some_rows_steers_them_alone_and_computes_for_them_alone(
    places: tuple[str, ...],
) -> None:
    unet = random_model("", TINY).load("unet", "cpu", torch.float32)
    x, timesteps, context = inputs(3)
    seen: list[int] = []

    class Counting(FakeControl):
        def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
            seen.append(len(x))
            return FakeControl.__call__(self, x, timesteps, context)

    plain = control(places=places)
    added = Counting(plain.config, plain.hint, plain.weight, plain.places)
    parts = [Conditioning(row) for row in context.split(1)]
    steered = replace(parts[1], controls=(added,))
    both = Conditioning.stack([parts[0], steered, parts[2]])
    with torch.inference_mode():
        together = unet(x, timesteps, both)
        alone = [
            unet(x[i : i + 1], timesteps[i : i + 1], told)
            for i, told in enumerate((parts[0], steered, parts[2]))
        ]
    assert seen == [1, 1]
    assert relative_error(together, torch.cat(alone)) <= 1e-5
    assert relative_error(together[1:2], unet(x, timesteps, Conditioning(context))[1:2]) > 0.001
    assert both.kind != Conditioning.stack([steered, *parts[1:]]).kind
    with pytest.raises(ValueError, match="follow each other"):
        Conditioning.stack([steered, parts[1], steered])


def test_conditionings_of_other_tensors_are_no_batch() -> None:
    context = torch.zeros(1, 7, 3)
    with pytest.raises(ValueError, match="cannot be one batch"):
        Conditioning.stack([Conditioning(context, pooled=context[0]), Conditioning(context)])
