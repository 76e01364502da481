"""Single layers in the forms that are fastest on a CPU.

What each gains is told in `prepare`, which decides where each stands.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.layers import Upsample
from sdscratch.models.unet import FeedForward

__all__ = ["BlockedFeedForward", "PackedConv", "Remembering", "TransposedUpsample"]

FEW = 256  # positions, below which the folded upsampling is the slower one in bfloat16
AT_ONCE = 64  # outputs of a kernel that are folded
LARGE = 2**25  # bytes that an allocator takes from the system by themselves, not from what it keeps
CACHED = 2**22  # numbers between a feed-forward's two halves that stay in the processor's cache


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
        self.padding, self.stride = plain.padding, plain.stride[0]
        self.form = (plain.padding, plain.stride, plain.dilation, plain.groups)
        packed = torch.ops.mkldnn._reorder_convolution_weight(plain.weight.detach(), *self.form)
        self.register_buffer("weight", packed)
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.form, "none", [], "")
