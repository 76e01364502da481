"""Layers of 16-bit weights on a processor that multiplies float32 alone: computed in that, then rounded.

The weights take half the room all the same: a layer's are widened when its turn comes, and what it is given
in blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.fast.processor import multiplies
from sdscratch.hardware import device_kind

__all__ = ["WidenedConv", "WidenedLinear", "widen"]

AT_ONCE = 2**23  # numbers of a block: 32 MB


def widen(network: nn.Module) -> None:
    """Replace layers whose weights' type the processor does not multiply, in place; on a CPU only."""
    for name, module in list(network.named_modules()):
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        if device_kind(module.weight.device) == "cpu" and not multiplies(module.weight.dtype):
            form = WidenedLinear(module) if isinstance(module, nn.Linear) else WidenedConv(module)
            network.set_submodule(name, form)


class WidenedLinear(nn.Module):
    """An `nn.Linear`, over blocks of tokens."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        tokens = x.flatten(0, -2)
        out = x.new_empty(tokens.shape[0], weight.shape[0])
        rows = max(1, AT_ONCE // max(weight.shape))
        for block, to in zip(tokens.split(rows), out.split(rows), strict=True):
            to.copy_(F.linear(block.float(), weight, bias))
        return out.view(*x.shape[:-1], -1)


class WidenedConv(nn.Module):
    """An `nn.Conv2d`, over bands of rows."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        assert isinstance(plain.padding, tuple)
        self.weight, self.bias = plain.weight, plain.bias
        self.padding, self.form = plain.padding, (plain.stride, 0, plain.dilation, plain.groups)
        self.stride = plain.stride[0]
        self.reach = plain.dilation[0] * (plain.kernel_size[0] - 1) + 1  # input rows of an output row

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ·, ·]."""
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
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
