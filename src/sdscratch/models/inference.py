"""The forms in which networks run fastest where nothing is learned: made once, after loading.

Each computes what the module computes that it replaces, to rounding. They are for the CPU, where oneDNN runs
the products; a GPU's libraries choose forms of their own. What oneDNN has no products for is `widened`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.layers import Upsample
from sdscratch.models.processor import multiplies
from sdscratch.models.unet import FeedForward, TransformerBlock
from sdscratch.models.widened import widen
from sdscratch.models.winograd import Scratch, WinogradConv

__all__ = ["prepare"]

# Milliseconds on Zen 4 with two threads in bfloat16, guided at 512×512, before → after: upsampling 141 → 67,
# 136 → 87 and (the deepest) 36 → 48, in the decoder 180 → 82, 773 → 362, 791 → 352, and in float32 as well
# (1667 → 797); feed-forward at 4096 tokens 84 → 55, at fewer the same; convolutions packed, of 2560 → 1280
# channels at 8×8 81 → 32, at 16×16 82 → 63, of 1280 → 1280 at 8×8 10.6 → 8.0; by Winograd, of 320 → 320 at
# 64×64 34 → 27, 960 → 320 101 → 63, of 640 → 640 at 32×32 34 → 21, 1280 → 640 68 → 44, in the decoder of
# 512 → 512 at 128×128 175 → 104, of 256 → 256 at 256×256 192 → 167, and in float32 67 → 46, 226 → 139,
# 69 → 44, 139 → 105, 385 → 235, 372 → 292.
NARROW, WIDE = 256, 640  # channels between which Winograd's convolutions are used
HEAVY = 2**22  # weights of a convolution from which laying them out anew each time shows
FEW = 256  # positions, below which the folded upsampling is the slower one in bfloat16
AT_ONCE = 64  # outputs of a kernel that are folded
LARGE = 2**25  # bytes that an allocator takes from the system by themselves, not from what it keeps
CACHED = 2**22  # numbers between a feed-forward's two halves that stay in the processor's cache


def prepare(network: nn.Module, freed: Callable[[], None] = lambda: None) -> nn.Module:
    """Replace modules of a network on a CPU by their fast forms, in place; elsewhere change nothing.

    The network can only compute from now on: not learn, nor move, nor be saved.

    Args:
        freed: called whenever a module has been replaced and its weights are free.
    """
    widen(network)
    scratch = Scratch()
    # names, not modules: what is replaced must be gone before the next is made, or all stood here twice
    for name in _replaceable(network):
        module = network.get_submodule(name)
        weight = next(module.parameters(recurse=True), None)
        if weight is None or weight.device.type != "cpu":
            continue
        half = weight.dtype == torch.bfloat16
        match module:
            case TransformerBlock():
                for layer in ("cross_attention.key", "cross_attention.value"):
                    network.set_submodule(f"{name}.{layer}", Remembering(module.get_submodule(layer)))
            case _ if not multiplies(weight.dtype):
                continue
            case Upsample():
                network.set_submodule(name, TransposedUpsample(module, freed))
            case FeedForward() if half:
                network.set_submodule(name, BlockedFeedForward(module))
            case nn.Conv2d() if _pays_by_winograd(module):
                network.set_submodule(name, WinogradConv(module, scratch))
            case nn.Conv2d() if half and weight.numel() >= HEAVY:
                network.set_submodule(name, PackedConv(module))
            case _:
                continue
        if isinstance(module, (Upsample, nn.Conv2d)):
            del module, weight
            freed()
    return network


def _replaceable(network: nn.Module) -> list[str]:
    """Names of what has a fast form; the convolution of an upsampling is part of its form."""
    modules = dict(network.named_modules())
    kinds = (Upsample, TransformerBlock, FeedForward, nn.Conv2d)
    return [
        name
        for name, module in modules.items()
        if isinstance(module, kinds) and not isinstance(modules.get(name.rpartition(".")[0]), Upsample)
    ]


def _pays_by_winograd(conv: nn.Conv2d) -> bool:
    """Whether Winograd's form is the faster one, and its larger weights can be borne.

    What a network computes in more than `WIDE` channels it computes at few positions, and those weights are
    most of its weights.
    """
    form = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    if form != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
        return False
    if conv.weight.dtype == torch.bfloat16 and torch.cpu.get_capabilities().get("amx_bf16", False):
        return False  # products so fast that getting at the numbers is what takes time
    return min(conv.in_channels, conv.out_channels) >= NARROW and conv.out_channels <= WIDE


class TransposedUpsample(Upsample):
    """`Upsample` as one transposed convolution of stride 2: 16 products a position and channel, not 36.

    Of the nine positions under the 3×3 kernel in the doubled picture, several are copies of one: along each
    axis, with weights (a, b, c), an even position sees a·left + (b + c)·itself, an odd one
    (a + b)·itself + c·right. Those are the taps of a kernel of 4, (c, b + c, a + b, a), set at every second
    position (Shi et al. 2016, section 3, for the equivalence).
    """

    def __init__(self, plain: Upsample, freed: Callable[[], None] = lambda: None) -> None:
        nn.Module.__init__(self)
        self.conv = plain.conv
        self.freed = freed
        self.folded: Tensor | None = None  # made when first used: what only ever sees few positions has none

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """[n, c, h, w] → [n, c, 2h, 2w]; to any other size, or from few positions, the plain way."""
        odd = size is not None and tuple(size) != (2 * x.shape[2], 2 * x.shape[3])
        few = x.dtype == torch.bfloat16 and x.shape[0] * x.shape[2] * x.shape[3] < FEW
        if odd or few:
            return super().forward(x, size)
        if self.folded is None:
            self.folded = _folded(self.conv.weight)
        if 4 * x.nbytes >= LARGE:
            self.freed()  # from here on, what the allocator kept of smaller results is of no use
        return F.conv_transpose2d(x, self.folded, self.conv.bias, stride=2, padding=1)


def _folded(kernel: Tensor) -> Tensor:
    """[outputs, inputs, 3, 3] → [inputs, outputs, 4, 4], in channels_last."""
    outputs, inputs = kernel.shape[:2]
    folded = kernel.new_empty(inputs, outputs, 4, 4).to(memory_format=torch.channels_last)
    for some in torch.arange(outputs).split(
        AT_ONCE
    ):  # all at once, in float32, would be four times the result
        weight = kernel.detach()[some].float()
        for axis in (2, 3):
            a, b, c = weight.unbind(axis)
            weight = torch.stack([c, b + c, a + b, a], axis)
        folded[:, some] = weight.transpose(0, 1).to(kernel.dtype)
    return folded


class Remembering(nn.Module):
    """What a layer gave last, as long as it is asked the same: a prompt's keys and values, at every step.

    Looking whether it is the same takes a thousandth of computing it.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None or not torch.equal(self.last[0], x):
            self.last = x.clone(), self.layer(x)
        return self.last[1]


class BlockedFeedForward(nn.Module):
    """`FeedForward` over blocks of tokens: what lies between its halves stays in the cache.

    oneDNN adds the bias inside the product and applies the (exact) GELU there, too.
    """

    def __init__(self, plain: FeedForward) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        expand, contract = self.plain.expand, self.plain.contract
        value_weight, gate_weight = expand.weight.chunk(2)
        value_bias, gate_bias = expand.bias.chunk(2)
        linear = torch.ops.mkldnn._linear_pointwise
        tokens = x.flatten(0, -2)
        out = torch.empty_like(tokens)
        rows = max(1, CACHED // contract.in_features)
        for block, to in zip(tokens.split(rows), out.split(rows), strict=True):
            gated = linear(block, gate_weight, gate_bias, "gelu", [], "none")
            gated *= linear(block, value_weight, value_bias, "none", [], "")
            to.copy_(linear(gated, contract.weight, contract.bias, "none", [], ""))
        return out.view_as(x)


class PackedConv(nn.Module):
    """A convolution whose weights lie as oneDNN wants them; it would else lay them out anew each time."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        assert isinstance(plain.padding, tuple)
        self.form = (plain.padding, plain.stride, plain.dilation, plain.groups)
        packed = torch.ops.mkldnn._reorder_convolution_weight(plain.weight.detach(), *self.form)
        self.register_buffer("weight", packed)
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.form, "none", [], "")
