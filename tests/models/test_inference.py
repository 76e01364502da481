"""The fast forms of networks against the forms they replace."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from sdscratch.models.inference import TransposedUpsample, prepare
from sdscratch.models.layers import ResidualBlock, Upsample
from sdscratch.models.unet import UNet
from sdscratch.models.vae import Decoder
from support.checkpoints import TINY
from support.diffusion import relative_error


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator()).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 4), (16, 16)])
def test_one_transposed_convolution_is_doubling_and_convolution(size: tuple[int, int], batch: int) -> None:
    torch.manual_seed(0)
    plain = Upsample(24)
    x = random_inputs(batch, 24, *size)
    with torch.inference_mode():
        assert relative_error(TransposedUpsample(plain)(x), plain(x)) <= 3e-6


@pytest.mark.parametrize("size", [(13, 9), (14, 9), (13, 10)])
def test_upsampling_to_an_odd_size_stays_what_it_was(size: tuple[int, int]) -> None:
    plain = Upsample(8)
    x = random_inputs(2, 8, 7, 5)
    with torch.inference_mode():
        assert torch.equal(TransposedUpsample(plain)(x, size), plain(x, size))


def test_in_bfloat16_the_transposed_convolution_is_no_less_exact() -> None:
    torch.manual_seed(0)
    exact = Upsample(64)
    rounded = deepcopy(exact).bfloat16()
    x = random_inputs(1, 64, 16, 16).bfloat16()
    with torch.inference_mode():
        wanted = exact(x.float())
        plain, fast = (
            relative_error(rounded(x), wanted),
            relative_error(TransposedUpsample(rounded)(x), wanted),
        )
    assert fast <= 1.2 * plain


def networks() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    torch.manual_seed(0)
    context = torch.randn(3, 7, TINY.unet.context)
    return [
        (
            UNet(TINY.unet),
            (random_inputs(3, TINY.unet.latent_channels, 10, 12), torch.tensor([1.0, 500.0, 999.0]), context),
        ),
        (Decoder(TINY.autoencoder), (random_inputs(3, TINY.autoencoder.latent_channels, 5, 6),)),
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["unet", "decoder"])
def test_a_prepared_network_computes_the_same(index: int) -> None:
    network, inputs = networks()[index]
    with torch.inference_mode():
        wanted = network(*inputs)
        assert relative_error(prepare(network)(*inputs), wanted) <= 5e-6
    assert any(isinstance(module, TransposedUpsample) for module in network.modules())


@pytest.mark.parametrize("index", [0, 1], ids=["unet", "decoder"])
def test_computing_in_place_changes_neither_results_nor_inputs(index: int) -> None:
    network, inputs = networks()[index]
    before = [x.clone() for x in inputs]
    learned = network(*inputs)
    with torch.inference_mode():
        assert relative_error(network(*inputs), learned.detach()) <= 1e-6
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_gradients_pass_through_a_residual_block() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, 2, 1e-6).double()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
