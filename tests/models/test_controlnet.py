"""ControlNets and T2I-Adapters give what diffusers' give, of the same weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.models.config import AdapterConfig, ControlNetConfig
from sdscratch.models.controlnet import ControlNet, HintedControlNet, guess_scales, soft_scales
from sdscratch.models.t2i_adapter import Adapter
from support.controlnets import (
    TINY_ADAPTER,
    TINY_CONTROL,
    TINY_LIGHT,
    adapter_of_diffusers,
    control_tensors,
    controlnet_of_diffusers,
    weights_of,
)
from support.diffusion import relative_error


def loaded(network: Any, config: ControlNetConfig | AdapterConfig) -> Any:
    tensors = control_tensors(weights_of(config))
    network.load_state_dict({weight.name: tensor for weight, tensor in tensors.items()})
    return network.eval()


def inputs(size: tuple[int, int] = (9, 8)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator)
    picture = torch.rand(1, 3, *(8 * side for side in size), generator=generator)
    return x, torch.tensor([100.5, 900.0]), torch.randn(2, 7, 32, generator=generator), picture


@pytest.mark.parametrize("change", [{}, {"bgr": True}, {"pooled": True}], ids=str)
@pytest.mark.parametrize("guess", [False, True], ids=["", "guess mode"])
def test_a_controlnet_gives_diffusers_residuals(change: dict[str, Any], guess: bool) -> None:
    config = replace(TINY_CONTROL, **change)
    ours, theirs = loaded(ControlNet(config), config), controlnet_of_diffusers(config)
    x, timesteps, context, picture = inputs()
    with torch.inference_mode():
        wanted = theirs(
            x, timesteps, context, picture.expand(2, -1, -1, -1), 0.7, guess_mode=guess, return_dict=False
        )
        features = ours.encode_hint(picture)
        scales = guess_scales(13) if guess and not config.pooled else ()
        given = HintedControlNet(ours, features, torch.tensor([0.7]), scales)(x, timesteps, context)
    assert given.middle is not None
    for mine, reference in zip((*given.skips, given.middle), (*wanted[0], wanted[1]), strict=True):
        assert relative_error(mine, reference) <= 1e-5


@pytest.mark.parametrize("config", [TINY_ADAPTER, TINY_LIGHT], ids=["full", "light"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)], ids=str)
def test_an_adapter_gives_diffusers_features(
    config: AdapterConfig, channels: int, size: tuple[int, int]
) -> None:
    config = replace(config, hint_channels=channels)
    ours, theirs = loaded(Adapter(config), config), adapter_of_diffusers(config)
    picture = inputs(size)[3][:, :channels]
    with torch.inference_mode():
        pairs = zip(ours(picture), theirs(picture), strict=True)
        assert max(relative_error(mine, reference) for mine, reference in pairs) <= 1e-5


def test_soft_weights_fall_from_the_middle_outwards() -> None:
    scales = soft_scales(13)
    assert scales[12] == 1.0
    assert scales[0] == pytest.approx(0.825**12)
    assert all(earlier < later for earlier, later in pairwise(scales))
