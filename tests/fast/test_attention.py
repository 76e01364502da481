"""Attention by blocks against its definition in float64, and against PyTorch's kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.bench.random_model import random_model
from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.layouts import PARTS
from sdscratch.fast import attention as module
from sdscratch.fast.attention import FastAttention, blocked_attention, plain_attention, swap_attention
from sdscratch.fast.processor import multiplies
from sdscratch.models.attention import DotProductAttention
from support.checkpoints import TINY
from support.diffusion import relative_error

bfloat16 = pytest.mark.skipif(
    not multiplies(torch.bfloat16), reason="this processor has no bfloat16 products"
)

# n, heads, t, s, d: batches of 1 to 3, tokens that fill no block, heads of one lane and of many
SHAPES = [(1, 1, 512, 512, 64), (2, 3, 700, 513, 40), (3, 2, 65, 2000, 80), (1, 1, 600, 600, 160)]


def rounded(n: int, heads: int, t: int, s: int, d: int, scale: float = 1.5) -> list[Tensor]:
    """Query, key and value as the products before attention give them: in bfloat16."""
    generator = torch.Generator().manual_seed(t)
    shapes = [(n, heads, t, d), (n, heads, s, d), (n, heads, s, d)]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    shared = 2.0 * torch.randn(n, heads, 1, d, generator=generator)  # what all keys have in common
    return [x.bfloat16() for x in (scale * query, scale * key + shared, value)]


def defined(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = query.double(), key.double(), value.double()
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v


@bfloat16
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_by_blocks_is_attention(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2**16)  # many blocks, and a last one that is not full
    given = rounded(*shape)
    with torch.inference_mode():
        assert relative_error(blocked_attention(*given), defined(*given)) <= 0.01  # 2.5 steps of bfloat16


@bfloat16
def test_attention_by_blocks_takes_scores_that_sigmoid_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = rounded(1, 2, 600, 600, 40)
    key[0, 1] = 8.0 * query[0, 1]  # in one head a token's score with itself is 100 above the rest
    with torch.inference_mode():
        ours = blocked_attention(query, key, value)
        assert relative_error(ours, defined(query, key, value)) <= 0.01
        monkeypatch.setattr(module, "EXACT", float("inf"))
        assert relative_error(blocked_attention(query, key, value), defined(query, key, value)) > 0.05


@bfloat16
def test_not_a_number_stays_visible() -> None:
    query, key, value = rounded(1, 1, 512, 512, 40)
    query[0, 0, 5, 7] = torch.nan
    with torch.inference_mode():
        assert not torch.isfinite(blocked_attention(query, key, value)[0, 0, 5]).any()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [77, 512])
def test_heads_lie_side_by_side(dtype: torch.dtype, tokens: int, causal: bool) -> None:
    x = torch.randn(3, 2, tokens, 3 * 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    heads = [part.unflatten(-1, (3, 16)).transpose(1, 2) for part in x]
    expected = F.scaled_dot_product_attention(*(h.float() for h in heads), is_causal=causal)
    with torch.inference_mode():
        ours = FastAttention(3, causal=causal)(*x)
    assert ours.dtype == dtype
    limit = 1e-5 if dtype == torch.float32 else 0.01
    assert relative_error(ours.float(), expected.transpose(1, 2).flatten(2)) <= limit


@bfloat16
def test_gradients_flow_at_any_size() -> None:
    x = torch.randn(3, 1, 600, 32).bfloat16().requires_grad_()
    FastAttention(2)(*x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_attention_and_its_gradients_are_those_of_the_definition(
    dtype: torch.dtype, causal: bool
) -> None:
    given = [x.to(dtype).requires_grad_() for x in rounded(2, 3, 40, 40, 16, scale=0.7)]
    exact = [x.detach().double().requires_grad_() for x in given]
    ours, theirs = (
        plain_attention(*given, causal),
        F.scaled_dot_product_attention(*exact, is_causal=causal),
    )
    wanted = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    ours.backward(wanted.to(dtype))
    theirs.backward(wanted.to(dtype).double())
    limit = 1e-5 if dtype == torch.float32 else 0.02
    assert relative_error(ours.detach().double(), theirs.detach()) <= limit
    for x, reference in zip(given, exact, strict=True):
        assert x.grad is not None
        assert reference.grad is not None
        assert relative_error(x.grad.double(), reference.grad) <= limit


@bfloat16
@pytest.mark.parametrize(("tokens", "causal"), [(64, False), (64, True), (600, False)])
def test_what_learns_with_few_keys_does_it_plainly(
    tokens: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def plain(*given: Tensor | bool) -> Tensor:
        called.append(given)
        return plain_attention(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "plain_attention", plain)
    x = torch.randn(3, 1, tokens, 32).bfloat16().requires_grad_()
    FastAttention(2, causal=causal)(*x)
    assert len(called) == (tokens <= 256)
    with torch.no_grad():
        FastAttention(2, causal=causal)(*x)
    assert len(called) == (tokens <= 256)


def test_every_attention_of_a_network_is_swapped_and_no_name_changes() -> None:
    for part in PARTS:
        network = random_model("", TINY).load(part, "cpu", torch.float32)
        names = list(network.state_dict())
        plain = [type(m) for m in network.modules() if isinstance(m, DotProductAttention)]
        swap_attention(network)
        swapped = [m for m in network.modules() if isinstance(m, DotProductAttention)]
        assert len(swapped) == len(plain) > 0
        assert {type(m) for m in swapped} == {FastAttention}
        assert {m.causal for m in swapped} == {part == "text"}
        assert list(network.state_dict()) == names


def test_on_another_device_attention_stays_the_plain_one() -> None:
    network = empty_network("unet", TINY)
    swap_attention(network)
    assert not any(isinstance(module, FastAttention) for module in network.modules())


@pytest.mark.parametrize(("tokens", "causal"), [(64, False), (64, True), (300, False)])
def test_which_way_learning_takes_and_which_drawing(
    tokens: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice alone, in float32, on any processor."""
    taken: list[str] = []

    def watched(name: str) -> Callable[..., Tensor]:
        def way(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
            taken.append(name)
            return plain_attention(q, k, v, causal)

        return way

    here = ("cpu", torch.float32)
    monkeypatch.setattr(module, "PLAIN_UP_TO", {here: 256})
    monkeypatch.setattr(module, "BLOCKED_FROM", {here: 128})
    monkeypatch.setattr(module, "plain_attention", watched("plain"))
    monkeypatch.setattr(module, "blocked_attention", watched("blocked"))
    x = torch.randn(3, 1, tokens, 32).requires_grad_()
    attend, wanted = FastAttention(2, causal=causal), DotProductAttention(2, causal=causal)(*x).detach()
    assert relative_error(attend(*x).detach(), wanted) <= 1e-5
    assert taken == (["plain"] if tokens <= 256 else [])
    with torch.no_grad():
        assert relative_error(attend(*x), wanted) <= 1e-5
    assert taken[1 if tokens <= 256 else 0 :] == (["blocked"] if tokens >= 128 else [])
