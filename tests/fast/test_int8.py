"""Products of 8-bit integers: every operator against its definition in float64, and pictures.

A processor without VNNI runs them all the same, with a bit less of what a layer is given (`fast.int8`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch import load
from sdscratch.bench.pictures import distance
from sdscratch.device import TRIED, multiplies_integers
from sdscratch.fast import int8
from sdscratch.fast.int8 import Int8Conv, Int8Linear, quantised_input, swap_integers
from sdscratch.fast.prepare import prepare
from sdscratch.generation.networks import NotFiniteError, dtype_of
from sdscratch.generation.pipeline import Pipeline
from sdscratch.models.quantised import QuantisedConv, QuantisedLinear, quantised_rows, widened
from sdscratch.models.unet import UNet
from support.checkpoints import TINY

STEPS = 254 if multiplies_integers() else 126


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers_between(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    """All of them as float32, the ends among them."""
    numbers = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()
    numbers.view(-1)[:2] = torch.tensor([low, high]).float()
    return numbers


def linear(outputs: int, inputs: int, *, whole: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    weight = integers_between(-127, 127, outputs, inputs) if whole else random(outputs, inputs)
    if whole:
        weight[:, 0] = 127.0  # so that every row's scale is 1
    layer.weight.data, layer.bias.data = weight, random(outputs, seed=1)
    return layer.requires_grad_(False)


def conv(outputs: int, inputs: int, kernel: int, stride: int, *, whole: bool = False) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    shape = outputs, inputs, kernel, kernel
    weight = integers_between(-127, 127, *shape) if whole else random(*shape)
    if whole:
        weight[:, 0, 0, 0] = 127.0
    layer.weight.data, layer.bias.data = weight, random(outputs, seed=1)
    return layer.requires_grad_(False)


def defined_input(x: Tensor) -> tuple[Tensor, float, int]:
    """q, s, z by their definition, in float64 but for the last sum, which is float32's."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    s = (high - low) / STEPS or 1.0
    z = math.floor(0.5 - low / s)
    inverse = np.float32(1.0 / s).astype(np.float64)
    shifted = (x.double().numpy() * inverse + (z + 0.5)).astype(np.float32)
    return torch.from_numpy(np.floor(shifted).astype(np.uint8)), s, z


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 320, 9, 5)])
def test_what_a_layer_is_given_becomes_integers_by_the_formula(shape: tuple[int, ...], shift: float) -> None:
    x = random(*shape) + shift
    q, s, z = quantised_input(x)
    wanted, scale, zero = defined_input(x)
    assert torch.equal(q, wanted)
    assert (s, z) == (scale, zero)
    assert ((q.double() - z) * s - x.double()).abs().max() <= 0.5001 * s
    assert quantised_input(torch.zeros(3, 3))[0].eq(0).all()


def test_weights_become_integers_by_the_formula() -> None:
    weight = random(5, 4, 3, 3)
    weight[2] = 0.0
    integers, scales = quantised_rows(weight)
    largest = weight.flatten(1).abs().amax(1).double().numpy()
    wanted = np.float32(largest / 127)
    assert np.array_equal(scales.flatten().numpy(), wanted)
    exact = weight.double().numpy() / np.where(wanted == 0, 1, wanted)[:, None, None, None]
    assert np.array_equal(integers.numpy(), np.rint(exact.astype(np.float32)))  # halves to even
    assert torch.equal(widened(integers, scales), integers.float() * scales[..., None, None])


@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs"), [(1, 5, 3), (7, 32, 8), (130, 320, 96), (64, 1280, 33)]
)
def test_a_product_is_its_definition(tokens: int, inputs: int, outputs: int) -> None:
    layer, x = linear(outputs, inputs), random(2, tokens, inputs)
    q, s, z = defined_input(x)
    integers, scales = quantised_rows(layer.weight)
    sums = (q.double() - z) @ integers.double().T
    wanted = s * sums * scales.flatten().double() + layer.bias.double()
    found = Int8Linear(layer)(x)
    assert found.shape == (2, tokens, outputs)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() <= 1e-6 * (s * scales.max() * sums.abs().max())
    # with scales of 1, whole numbers come out: not one may be another
    layer = linear(outputs, inputs, whole=True)
    layer.bias.data.zero_()
    x = integers_between(-26, STEPS - 26, tokens + 1, inputs)
    exact = x.double() @ layer.weight.double().T
    assert exact.abs().max() < 2**24
    assert torch.equal(Int8Linear(layer)(x).double(), exact)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("n", "inputs", "outputs", "size"), [(1, 3, 5, 7), (2, 96, 64, 8)])
def test_a_convolution_is_its_definition(
    n: int, inputs: int, outputs: int, size: int, kernel: int, stride: int
) -> None:
    layer = conv(outputs, inputs, kernel, stride)
    x = random(n, inputs, size, size + 1).to(memory_format=torch.channels_last) + 1.0
    q, s, z = defined_input(x)
    integers, scales = quantised_rows(layer.weight)
    sums = F.conv2d(q.double() - z, integers.double(), None, stride, kernel // 2)
    wanted = s * sums * scales.double()[..., None] + layer.bias.double()[:, None, None]
    found = Int8Conv(layer)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - wanted).abs().max() <= 1e-6 * (s * scales.max() * sums.abs().max())
    layer = conv(outputs, inputs, kernel, stride, whole=True)
    layer.bias.data.zero_()
    x = integers_between(-26, STEPS - 26, n, inputs, size, size)
    exact = F.conv2d(x.double(), layer.weight.double(), None, stride, kernel // 2)
    assert torch.equal(Int8Conv(layer)(x).double(), exact)


def test_weights_that_are_integers_already_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, kernel = linear(8, 64), conv(8, 16, 3, 1)
    x, picture = random(4, 64), random(1, 16, 6, 6)
    wanted = Int8Linear(plain)(x), Int8Conv(kernel)(picture)
    held = QuantisedLinear(plain, *quantised_rows(plain.weight))
    held_kernel = QuantisedConv(kernel, *quantised_rows(kernel.weight))
    monkeypatch.setattr(int8, "quantised_rows", None)  # nothing is quantised again
    assert torch.equal(Int8Linear(held)(x), wanted[0])
    assert torch.equal(Int8Conv(held_kernel)(picture), wanted[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    x = random(3, 8)
    x[1, 1] = bad
    assert Int8Linear(linear(4, 8))(x).isnan().all()


def test_layers_are_replaced_where_it_pays() -> None:
    network = UNet(TINY.unet)
    swap_integers(network, lambda: None, worth=0)
    forms = {name for name, module in network.named_modules() if isinstance(module, (Int8Conv, Int8Linear))}
    assert {"down.1.0.conv1", "down.1.1.project_in", "down.1.1.block.feed_forward.contract"} <= forms
    assert not any(
        name.startswith(("time", "down.0.", "conv_out")) or name.endswith("time") for name in forms
    )
    assert not any("cross_attention.key" in name or "cross_attention.value" in name for name in forms)
    network = UNet(TINY.unet)
    swap_integers(network, lambda: None, worth=2**12)
    some = {name for name, module in network.named_modules() if isinstance(module, (Int8Conv, Int8Linear))}
    assert some < forms
    assert "down.1.1.project_in" not in some
    assert not any(
        isinstance(module, (Int8Conv, Int8Linear)) for module in prepare(UNet(TINY.unet)).modules()
    )


def test_a_network_that_fails_in_integers_is_loaded_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRIED, "1")
    networks = load("default", device="cpu", dtype="int8").networks
    assert any(isinstance(module, Int8Conv) for module in networks["unet"].modules())
    networks.fall_back(networks.not_finite("unet"))
    assert dtype_of(networks["unet"]) == torch.float32
    assert not any(isinstance(module, (Int8Conv, Int8Linear)) for module in networks["unet"].modules())
    with pytest.raises(NotFiniteError, match="NaN or infinity in float32"):
        networks.fall_back(networks.not_finite("unet"))


@pytest.fixture(scope="module")
def exact() -> Pipeline:
    return load("default", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def approximate() -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRIED, "1")
        yield load("default", device="cpu", dtype="int8")


def test_a_picture_is_near_the_exact_one(exact: Pipeline, approximate: Pipeline) -> None:
    prompt = "a rocket on a blue background"
    one, other = (pipeline.txt2img(prompt, seed=1, steps=6) for pipeline in (exact, approximate))
    psnr = distance(other, one).psnr
    assert psnr is not None, "nothing was approximated"
    assert psnr >= 30.0


def test_the_record_says_so(approximate: Pipeline) -> None:
    assert approximate.placement.dtype_name == "int8"
    assert (
        sum(isinstance(module, (Int8Conv, Int8Linear)) for module in approximate.networks["unet"].modules())
        > 20
    )
