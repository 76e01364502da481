"""Layers of 16-bit weights on a processor that multiplies float32 alone: computed in that, then rounded.

The weights take half the room all the same: a layer's are widened when its turn comes, and what it is given
in blocks. Where weights are of 8 bits, the same is done with what their layers are given.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.fast.processor import multiplies
from sdscratch.hardware import device_kind
from sdscratch.models.quantised import Quantised, QuantisedConv, QuantisedLinear

__all__ = ["WidenedConv", "WidenedLinear", "widen"]

AT_ONCE = 2**23  # numbers of a block: 32 MB


def widen(network: nn.Module) -> None:
    """Replace layers whose weights' type the processor does not multiply, in place; on a CPU only."""
    first = next(network.parameters(), None)  # of the type in which what is quantised is to be computed, too
    for name, module in list(network.named_modules()):
        if isinstance(module, (nn.Linear, QuantisedLinear)) and _is_narrow(module, first):
            network.set_submodule(name, WidenedLinear(module))
        elif isinstance(module, (nn.Conv2d, QuantisedConv)) and _is_narrow(module, first):
            network.set_submodule(name, WidenedConv(module))


def _is_narrow(module: nn.Module, first: Tensor | None) -> bool:
    weight = first if isinstance(module, Quantised) else module.weight
    assert isinstance(weight, Tensor)
    return device_kind(weight.device) == "cpu" and not multiplies(weight.dtype)


class _Widened(nn.Module):
    """What both have: a weight of 16 bits, or integers and what they stand for."""

    def __init__(self, plain: nn.Linear | nn.Conv2d | Quantised) -> None:
        super().__init__()
        self.weight = None if isinstance(plain, Quantised) else plain.weight
        self.quantised = plain if isinstance(plain, Quantised) else None
        self.bias = plain.bias

    def widened(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in float32, as long as they are needed."""
        weight = self.weight if self.quantised is None else self.quantised.weight
        assert weight is not None
        return weight.float(), None if self.bias is None else self.bias.float()


class WidenedLinear(_Widened):
    """An `nn.Linear`, over blocks of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        weight, bias = self.widened()
        tokens = x.flatten(0, -2)
        out = x.new_empty(tokens.shape[0], weight.shape[0])
        rows = max(1, AT_ONCE // max(weight.shape))
        for block, to in zip(tokens.split(rows), out.split(rows), strict=True):
            to.copy_(F.linear(block.float(), weight, bias))
        return out.view(*x.shape[:-1], -1)


class WidenedConv(_Widened):
    """An `nn.Conv2d`, over bands of rows."""

    def __init__(self, plain: nn.Conv2d | QuantisedConv) -> None:
        super().__init__(plain)
        assert isinstance(plain.padding, tuple)
        self.padding, self.form = plain.padding, (plain.stride, 0, plain.dilation, plain.groups)
        self.stride = plain.stride[0]
        self.reach = plain.dilation[0] * (plain.kernel_size[0] - 1) + 1  # input rows of an output row

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ·, ·]."""
        weight, bias = self.widened()
        n, inputs, height, width = x.shape
        above, beside = self.padding
        bands = []
        most = max(1, AT_ONCE // (n * width * max(inputs, weight.shape[0])))
        down = (height + 2 * above - self.reach) // self.stride + 1
        for top in range(0, down, most):
            first = top * self.stride - above
            end = (min(top + most, down) - 1) * self.stride - above + self.reach
            seen = x[:, :, max(first, 0) : end].float()
            padded = F.pad(seen, (beside, beside, max(-first, 0), max(end - height, 0)))
            bands.append(F.conv2d(padded, weight, bias, *self.form).to(x.dtype))
        return bands[0] if len(bands) == 1 else torch.cat(bands, 2)
