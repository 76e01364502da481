"""FreeU and perturbed attention against diffusers' U-Net, in the plain form and in the fast one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import weights
from sdscratch.errors import UsageError
from sdscratch.fast.prepare import prepare
from sdscratch.models.altered import Alteration, FreeUFactors, altered, backbone_widths, low_scaled
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import SD1
from sdscratch.models.unet import UNet
from support.checkpoints import TINY, our_tensors
from support.diffusion import relative_error

FACTORS = FreeUFactors(1.5, 1.6, 0.9, 0.2)
X = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(2))
TIMESTEPS = torch.tensor([799.2, 20.0])
CONTEXT = torch.randn(2, 77, TINY.unet.context, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def unet() -> UNet:
    network = UNet(TINY.unet)
    network.load_state_dict(our_tensors(TINY)["unet"])
    return network.eval().requires_grad_(False)


@pytest.fixture
def reference() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UNet2DConditionModel

        own = our_tensors(TINY)["unet"]
        network = UNet2DConditionModel.from_config(to_folder(TINY, 512)["unet/config.json"])
        state = {w.diffusers.removeprefix("unet/"): own[w.name] for w in weights(TINY) if w.part == "unet"}
        network.load_state_dict(state)
        yield network.eval().requires_grad_(False)


def predicted(network: nn.Module) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = network(X, TIMESTEPS, Conditioning(CONTEXT))
        return answer


def test_freeu_is_the_second_version_at_the_two_widest(
    unet: UNet, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.unets import unet_2d_blocks
    from diffusers.utils.torch_utils import fourier_filter

    factors = {4 * TINY.unet.channels: (1.5, 0.9), 2 * TINY.unet.channels: (1.6, 0.2)}
    met = []

    def second_version(_: int, features: Tensor, skip: Tensor, **__: float) -> tuple[Tensor, Tensor]:
        width = features.shape[1]
        met.append(width)
        if width not in factors:
            return features, skip
        b, s = factors[width]
        mean = features.double().mean(1, keepdim=True)
        low, high = (bound(mean.flatten(1), 1).view(-1, 1, 1, 1) for bound in (torch.amin, torch.amax))
        alpha = (b - 1) * (mean - low) / (high - low) + 1
        first, second = features.chunk(2, dim=1)
        return torch.cat([(first * alpha).to(first), second], 1), fourier_filter(skip, 1, s)

    monkeypatch.setattr(unet_2d_blocks, "apply_freeu", second_version)
    reference.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    with torch.inference_mode():
        theirs = reference(X, TIMESTEPS, CONTEXT).sample
    assert met == backbone_widths(TINY.unet)
    ours = predicted(Alteration(FACTORS).of(unet))
    assert relative_error(ours, theirs) <= 1e-5
    assert relative_error(predicted(unet), theirs) > 1e-2


def test_freeu_names_stable_diffusions_widths() -> None:
    assert backbone_widths(SD1.unet) == [1280] * 7 + [640] * 3 + [320] * 2


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 6), (2, 2)])
def test_low_frequencies_are_scaled_as_diffusers_does(size: tuple[int, int]) -> None:
    from diffusers.utils.torch_utils import fourier_filter

    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
    if min(size) > 1:  # theirs leaves a single row alone
        torch.testing.assert_close(low_scaled(x, 0.2), fourier_filter(x, 1, 0.2))
    assert relative_error(low_scaled(x, 1.0), x) <= 1e-6


def test_features_that_are_alike_everywhere_stay() -> None:
    flat = altered(UNet(TINY.unet), {})  # without alterations, the very network
    factors = Alteration(FreeUFactors(1.5, 1.5, 1.0, 1.0)).of(flat)
    free = factors.get_submodule("up.0.0")
    even = torch.ones(1, 96, 3, 3)
    torch.testing.assert_close(free(even), even)


def test_perturbed_attention_is_that_of_diffusers(unet: UNet, reference: Any) -> None:
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    for block in reference.mid_block.attentions[0].transformer_blocks:
        block.attn1.processor = PAGIdentitySelfAttnProcessor2_0()
    with torch.inference_mode():
        both = reference(torch.cat([X, X]), torch.cat([TIMESTEPS] * 2), torch.cat([CONTEXT] * 2)).sample
    plain, perturbed = both.chunk(2)
    assert relative_error(predicted(unet), plain) <= 1e-5
    assert relative_error(predicted(Alteration(perturbed=True).of(unet)), perturbed) <= 1e-5
    assert relative_error(plain, perturbed) > 1e-3


@pytest.mark.parametrize("alteration", [Alteration(FACTORS), Alteration(FACTORS, perturbed=True)])
def test_the_fast_form_is_altered_alike_and_stays_itself(unet: UNet, alteration: Alteration) -> None:
    fast = prepare(deepcopy(unet))
    assert isinstance(fast, UNet)
    before = predicted(fast)
    other = alteration.of(fast)
    assert type(other) is type(fast)
    assert relative_error(predicted(other), predicted(alteration.of(unet))) <= 1e-5
    assert torch.equal(predicted(fast), before)
    own = {id(weight) for weight in fast.parameters()}
    assert {id(weight) for weight in other.parameters()} == own  # no weight is held twice


def test_nothing_altered_is_the_very_network(unet: UNet) -> None:
    assert Alteration().of(unet) is unet


def test_a_middle_without_attention_is_refused_by_name() -> None:
    unet = UNet(replace(TINY.unet, attends=(True, True, True, False)))
    unet.middle = nn.ModuleList(nn.ModuleList(group[:1]) for group in unet.middle)  # type: ignore[index]
    with pytest.raises(UsageError, match="--pag-scale perturbs the attention in the middle"):
        Alteration(perturbed=True).of(unet)
