"""The fast forms of networks against the forms they replace."""

from __future__ import annotations

import weakref
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from sdscratch.fast import attention, kernels, widened, winograd
from sdscratch.fast import prepare as module
from sdscratch.fast.kernels import BlockedFeedForward, PackedConv, Remembering, TransposedUpsample
from sdscratch.fast.prepare import prepare
from sdscratch.fast.processor import multiplies
from sdscratch.fast.unet import FastUNet
from sdscratch.fast.widened import WidenedConv
from sdscratch.fast.winograd import Scratch, WinogradConv
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.layers import ResidualBlock, Upsample
from sdscratch.models.unet import FeedForward, UNet
from sdscratch.models.vae import Decoder
from support.checkpoints import TINY
from support.diffusion import relative_error

bfloat16 = pytest.mark.skipif(
    not multiplies(torch.bfloat16), reason="this processor has no bfloat16 products"
)


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


@bfloat16
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


def test_the_deepest_upsampling_in_bfloat16_stays_what_it_was() -> None:
    plain = Upsample(16).bfloat16()
    x = random_inputs(2, 16, 8, 8).bfloat16()
    ours = TransposedUpsample(plain)
    with torch.inference_mode():
        assert torch.equal(ours(x), plain(x))
    assert ours.folded is None  # no memory for what is never used


def test_before_large_results_memory_is_given_back() -> None:
    calls: list[int] = []
    upsample = TransposedUpsample(Upsample(16), lambda: calls.append(1))
    with torch.inference_mode():
        upsample(torch.zeros(1, 16, 8, 8))
        assert not calls
        upsample(torch.zeros(1, 16, 512, 256))
    assert calls


def test_keys_are_computed_once_a_prompt() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    remembering = Remembering(layer)
    with torch.inference_mode():
        prompt, other = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
        first = remembering(prompt)
        assert torch.equal(first, layer(prompt))
        assert remembering(prompt.clone()) is first
        assert torch.equal(remembering(other), layer(other))
        other[0, 0] += 1.0  # what it remembers is not what somebody changes
        assert torch.equal(remembering(other), layer(other))
        assert torch.equal(remembering(other[:1]), layer(other[:1]))


class ToldContext(nn.Module):
    """A U-Net that takes its context as a tensor."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return self.unet(x, timesteps, Conditioning(context))


def networks() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    torch.manual_seed(0)
    context = torch.randn(3, 7, TINY.unet.context)
    latent = random_inputs(3, TINY.unet.latent_channels, 10, 12)
    return [
        (ToldContext(UNet(TINY.unet)), (latent, torch.tensor([1.0, 500.0, 999.0]), context)),
        (Decoder(TINY.autoencoder), (random_inputs(3, TINY.autoencoder.latent_channels, 5, 6),)),
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["unet", "decoder"])
def test_a_prepared_network_computes_the_same(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NARROW", 8)
    network, inputs = networks()[index]
    with torch.inference_mode():
        wanted = network(*inputs)
        assert relative_error(prepare(network)(*inputs), wanted) <= 5e-6
    kinds = {type(module) for module in network.modules()}
    assert {TransposedUpsample, WinogradConv} <= kinds


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


def as_exact(exact: nn.Module, fast: nn.Module, x: Tensor, plain: nn.Module) -> bool:
    """Whether `fast` is about as far from the exact module as the plain module in bfloat16 is."""
    with torch.inference_mode():
        wanted = exact(x.float())
        return relative_error(fast(x), wanted) <= 1.2 * relative_error(plain(x), wanted)


@bfloat16
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (2, 256)])
def test_feed_forward_by_blocks_is_no_less_exact(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "CACHED", 2**14)  # blocks of 64 tokens
    torch.manual_seed(0)
    exact = FeedForward(64)
    plain = deepcopy(exact).bfloat16()
    assert as_exact(exact, BlockedFeedForward(plain), torch.randn(*shape, 64).bfloat16(), plain)


@bfloat16
@pytest.mark.parametrize("form", [(3, 1, 1), (3, 2, 0), (1, 1, 0)], ids=["same", "down", "point"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_convolution_is_the_convolution(form: tuple[int, int, int], batch: int) -> None:
    torch.manual_seed(0)
    kernel, stride, padding = form
    plain = nn.Conv2d(32, 48, kernel, stride, padding).bfloat16().to(memory_format=torch.channels_last)
    x = random_inputs(batch, 32, 9, 7).bfloat16()
    with torch.inference_mode():
        ours = PackedConv(plain)(x)
        assert relative_error(ours, plain(x)) <= 4e-3  # one step of bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)


def same_size(inputs: int, outputs: int, **form: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, **({"kernel_size": 3, "padding": 1} | form))


@pytest.mark.parametrize("cached", [1, 2**12, 2**23], ids=["by row", "by rows", "at once"])
@pytest.mark.parametrize("size", [(1, 1), (2, 31), (8, 8), (7, 9), (13, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograds_convolution_is_the_convolution(
    size: tuple[int, int], cached: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "CACHED", cached)
    torch.manual_seed(0)
    plain = same_size(24, 10, bias=bias)
    x = random_inputs(3, 24, *size)
    before = x.clone()
    with torch.inference_mode():
        ours = WinogradConv(plain, Scratch())(x)
        exact = plain.double()(x.double())
    assert relative_error(ours, exact) <= 5e-7
    assert torch.equal(x, before)


def test_winograds_convolution_in_float32_is_no_less_exact() -> None:
    torch.manual_seed(0)
    plain = same_size(256, 256)
    x = random_inputs(1, 256, 16, 16)
    with torch.inference_mode():
        fast, slow = WinogradConv(plain, Scratch())(x), plain(x)
        exact = plain.double()(x.double())
    assert relative_error(fast, exact) <= 1.2 * relative_error(slow, exact)


@bfloat16
def test_winograds_convolution_in_bfloat16_is_as_exact_as_it_says() -> None:
    torch.manual_seed(0)
    exact = same_size(256, 256)
    plain = deepcopy(exact).bfloat16()
    x = random_inputs(1, 256, 16, 16).bfloat16()
    with torch.inference_mode():
        wanted = exact(x.float())
        fast, slow = (relative_error(conv(x), wanted) for conv in (WinogradConv(plain, Scratch()), plain))
    assert fast <= 2.6 * slow


@pytest.mark.parametrize(
    ("conv", "chosen"),
    [
        (same_size(256, 256), True),
        (same_size(1920, 640), True),
        (same_size(640, 1280), False),
        (same_size(128, 256), False),
        (same_size(256, 128), False),
        (same_size(256, 256, stride=2), False),
        (same_size(256, 256, padding=0), False),
        (same_size(256, 256, padding=2, dilation=2), False),
        (same_size(256, 256, groups=2), False),
        (nn.Conv2d(256, 256, 1), False),
    ],
    ids=str,
)
def test_which_convolutions_become_winograds(conv: nn.Conv2d, chosen: bool) -> None:
    network = prepare(nn.Sequential(conv))
    assert isinstance(network[0], WinogradConv) == chosen


@pytest.mark.parametrize("amx", [False, True])
def test_a_processor_of_fast_matrix_products_convolves_in_bfloat16_the_plain_way(
    amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    for place in (module, widened):
        monkeypatch.setattr(place, "multiplies", lambda dtype: True)
    single, half = same_size(256, 256), same_size(256, 256).bfloat16()
    assert isinstance(prepare(nn.Sequential(single))[0], WinogradConv)
    assert isinstance(prepare(nn.Sequential(half))[0], WinogradConv) == (not amx)


@bfloat16
def test_what_is_prepared_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAVY", 2**10)
    monkeypatch.setattr(module, "NARROW", 8)
    monkeypatch.setattr(module, "WIDE", 16)
    network, inputs = networks()[0]
    exact = deepcopy(network)
    network = prepare(network.bfloat16())
    kinds = {type(module) for module in network.modules()}
    assert {TransposedUpsample, BlockedFeedForward, PackedConv, WinogradConv} <= kinds
    x, timesteps, context = inputs
    with torch.inference_mode():
        ours = network(x.bfloat16(), timesteps, context.bfloat16())
        assert relative_error(ours, exact(*inputs)) <= 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_where_the_processor_multiplies_no_16_bits_they_are_widened(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAVY", 0)
    monkeypatch.setattr(module, "NARROW", 8)
    for place in (module, widened):
        monkeypatch.setattr(place, "multiplies", lambda dtype: False)
    monkeypatch.setattr(widened, "AT_ONCE", 2**8)
    monkeypatch.setattr(attention, "WIDENED", {dtype})
    for network, inputs in networks():
        rounded = network.to(dtype)
        size = sum(weight.nbytes for weight in rounded.parameters())
        given = [x.to(dtype) if x.is_floating_point() and x.dim() > 1 else x for x in inputs]
        with torch.inference_mode():
            wanted = deepcopy(rounded).float()(*(x.float() for x in given))
            plain = relative_error(rounded(*given), wanted)
            ours = prepare(rounded)(*given)
        assert ours.dtype == dtype
        assert relative_error(ours, wanted) <= 1.5 * plain  # each rounds once a layer, by chance up or down
        assert sum(weight.nbytes for weight in rounded.parameters()) == size
        assert not {type(module) for module in rounded.modules()} & PRODUCTS


PRODUCTS = {nn.Conv2d, nn.Linear, BlockedFeedForward, PackedConv, TransposedUpsample, WinogradConv}


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.Conv2d(6, 4, 3, stride=2),
        nn.Conv2d(6, 4, 3, stride=2, padding=(2, 1), bias=False),
        nn.Conv2d(6, 4, (5, 3), padding=(3, 0), dilation=(2, 1), groups=2),
        nn.Conv2d(6, 8, 1),
    ],
    ids=str,
)
def test_bands_of_rows_together_are_the_convolution(
    conv: nn.Conv2d, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widened, "AT_ONCE", rows * 2 * 9 * 8)
    x = random_inputs(2, 6, 11, 9)
    with torch.inference_mode():
        assert relative_error(WidenedConv(conv)(x), conv(x)) <= 1e-6


def test_what_guidance_doubles_is_computed_once_and_the_same() -> None:
    network, (x, timesteps, context) = networks()[0]
    exact = deepcopy(network)
    network, x = network.bfloat16(), x.bfloat16()
    network.unet = FastUNet(network.unet)
    both, times = torch.cat([x, x]), torch.cat([timesteps, timesteps])
    contexts = torch.cat([context, context.flip(0)]).bfloat16()
    seen: list[int] = []
    network.unet.down[0][0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    with torch.inference_mode():
        once = network(both, times, contexts)
        wanted = exact(both.float(), times, contexts.float())
        apart = torch.cat([network(x, timesteps, c) for c in contexts.chunk(2)])
        assert relative_error(once, wanted) <= 1.2 * relative_error(apart, wanted)
        network(torch.cat([x, x + 1]), times, contexts)
        network(both, torch.cat([timesteps, timesteps + 1]), contexts)
    assert seen == [3, 3, 3, 6, 6]


@pytest.mark.parametrize(
    ("narrow", "dtype"), [(16, torch.float32), pytest.param(256, torch.bfloat16, marks=bfloat16)]
)
def test_what_is_replaced_is_gone_before_the_next_is_made(
    narrow: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NARROW", narrow)
    monkeypatch.setattr(module, "HEAVY", 0)
    network = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1, dtype=dtype) for _ in range(3)))
    plain = [weakref.ref(module) for module in network]
    alive: list[int] = []
    prepare(network, lambda: alive.append(sum(module() is not None for module in plain)))
    assert alive == [2, 1, 0]
