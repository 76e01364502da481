"""Layers whose weights stay 8-bit integers in memory, and are widened when their turn comes.

A weight is w = s·q: q an integer from −127 to 127, s a scale that numbers of one row share, the first side of
the weight (an output). With one scale a row that is the usual quantisation by output channel (Jacob et al.
2018, section 2.1, with a zero point of 0; Krishnamoorthi 2018, section 3.1); with one for every 32 numbers it
is ggml's Q8_0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["QuantisedConv", "QuantisedLinear", "quantised_rows", "widened"]

MOST = 127  # of an integer; −128 is left out, so that both signs are alike


def quantised_rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Integers int8 of the tensor's shape, and scales float32 [rows, 1]: the largest of a row becomes ±127.

    q = x/s rounded to the nearest, halves to even, in float32.
    """
    rows = tensor.float().flatten(1)
    scales = rows.abs().amax(1, keepdim=True) / MOST
    scaled = rows / torch.where(scales == 0, 1.0, scales)
    return scaled.round_().clamp_(-MOST, MOST).to(torch.int8).view(tensor.shape), scales


def widened(integers: Tensor, scales: Tensor) -> Tensor:
    """s·q in float32.

    Args:
        integers: int8, [rows, …].
        scales: [rows, k]: each of a row's k scales is that of a k-th of its numbers, in their order.
    """
    parts = integers.float().view(*scales.shape, -1)
    return parts.mul_(scales.float()[..., None]).view(integers.shape)


class Quantised(nn.Module):
    """What the layers share: `weight` is made of the integers whenever it is asked for."""

    integers: Tensor
    scales: Tensor

    def __init__(self, bias: Tensor | None, integers: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.bias = bias
        self.register_buffer("integers", integers, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The weight in float32."""
        return widened(self.integers, self.scales)


class QuantisedLinear(Quantised):
    """An `nn.Linear`."""

    def __init__(self, plain: nn.Linear, integers: Tensor, scales: Tensor) -> None:
        super().__init__(plain.bias, integers, scales)
        self.in_features, self.out_features = plain.in_features, plain.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class QuantisedConv(Quantised):
    """An `nn.Conv2d`."""

    def __init__(self, plain: nn.Conv2d, integers: Tensor, scales: Tensor) -> None:
        super().__init__(plain.bias, integers, scales)
        assert isinstance(plain.padding, tuple)
        self.in_channels, self.out_channels = plain.in_channels, plain.out_channels
        self.kernel_size, self.stride, self.padding = plain.kernel_size, plain.stride, plain.padding
        self.dilation, self.groups = plain.dilation, plain.groups

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ·, ·]."""
        weight = self.weight.to(x.dtype)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
