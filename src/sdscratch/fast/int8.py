"""Products of 8-bit integers on a CPU that has instructions for them (VNNI, AMX), by oneDNN's operators.

Weights are quantised by output channel when the network is loaded; what a layer is given by tensor, whenever
it is, with a zero point (Jacob et al. 2018, eq. 1 and 7; Krishnamoorthi 2018, sections 2 and 3):

    x ≈ s·(q − z)      s = (max − min) / 254, of a tensor with zero added to it     z = ⌊−min/s + ½⌋
    q = ⌊x/s + z + ½⌋, from 0 to 255        y = s·s_o·Σ (q − z)·q_w + bias, the sum in exact 32-bit integers

An approximation, and one that is asked for. What stays in the precision around it: a network's first and last
layers, the time, norms, attention's own products, a prompt's keys and values, upsampling (one transposed
convolution has fewer products than this would save), and all products that are too small to gain.

A processor of AVX2 alone adds two products in 16 bits, which overflow; there q is kept below 128 (126 in the
place of 254), so that everything can be tried on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from sdscratch.device import multiplies_integers
from sdscratch.models.layers import ResidualBlock
from sdscratch.models.quantised import QuantisedConv, QuantisedLinear, quantised_rows
from sdscratch.models.unet import SpatialTransformer

__all__ = ["Int8Conv", "Int8Linear", "quantised_input", "swap_integers"]

# Numbers of a weight from which integers are the faster: on Zen 4, matrix products of the U-Net's shapes take
# 0.44 to 0.59 of bfloat16's time, 3×3 convolutions 0.53 to 0.76, a product of 320 × 320 1.5.
WORTH = 2**17

STEPS, STEPS_IN_16_BITS = 254, 126  # one fewer than q has: so that neither end is rounded beyond it

Layer = nn.Linear | nn.Conv2d | QuantisedLinear | QuantisedConv
LAYERS = (nn.Linear, nn.Conv2d, QuantisedLinear, QuantisedConv)


def swap_integers(network: nn.Module, freed: Callable[[], None], worth: int = WORTH) -> None:
    """Replace the layers of a network on a CPU that gain by it, in place.

    Args:
        freed: called whenever a layer has been replaced and its weights are free.
        worth: how many weights a layer has at least.
    """
    names: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, ResidualBlock | SpatialTransformer):
            names += [f"{name}.{layer}" for layer in layers_of(module)]
    for name in names:
        form = _form(network.get_submodule(name), worth)
        if form is not None:
            network.set_submodule(name, form)
            freed()


def _form(layer: nn.Module, worth: int) -> nn.Module | None:
    """A layer of integers, where they are the faster."""
    if not isinstance(layer, LAYERS) or _size(layer) < worth:
        return None
    return Int8Linear(layer) if isinstance(layer, (nn.Linear, QuantisedLinear)) else Int8Conv(layer)


def layers_of(block: ResidualBlock | SpatialTransformer) -> list[str]:
    """Names of a block's layers for which integers are good."""
    if isinstance(block, ResidualBlock):
        return [name for name in ("conv1", "conv2", "skip") if getattr(block, name) is not None]
    inner = (f"{name}.{layer}" for name in block.names for layer in IN_TRANSFORMER)
    return list(chain(("project_in", "project_out"), inner))


IN_TRANSFORMER = (
    "self_attention.query",
    "self_attention.key",
    "self_attention.value",
    "self_attention.out",
    "cross_attention.query",
    "cross_attention.out",
    "feed_forward.expand",
    "feed_forward.contract",
)


def _size(layer: Layer) -> int:
    if isinstance(layer, (QuantisedLinear, QuantisedConv)):
        return layer.integers.numel()
    return layer.weight.numel()


def quantised_input(x: Tensor) -> tuple[Tensor, float, int]:
    """q, s and z as above: uint8 of x's shape and layout in memory, the scale, the zero point.

    Of numbers that are not all finite the scale is NaN, which makes all of the result NaN.
    """
    low, high = min(x.amin().item(), 0.0), max(x.amax().item(), 0.0)
    if not math.isfinite(high - low):
        return torch.zeros_like(x, dtype=torch.uint8), math.nan, 0
    scale = (high - low) / (STEPS if multiplies_integers() else STEPS_IN_16_BITS) or 1.0
    zero = int(0.5 - low / scale)
    shifted = torch.tensor(zero + 0.5)
    return torch.add(shifted, x.float(), alpha=1.0 / scale).to(torch.uint8), scale, zero


def _by_rows(layer: Layer) -> tuple[Tensor, Tensor]:
    """A layer's weights as integers, and a scale for each row: those it holds, if they are such."""
    if isinstance(layer, (QuantisedLinear, QuantisedConv)) and layer.scales.shape[1] == 1:
        return layer.integers, layer.scales.flatten().float()
    integers, scales = quantised_rows(layer.weight.detach())
    return integers, scales.flatten()


class _Int8(nn.Module):
    """What both have: packed weights, and what belongs to an output."""

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, layer: Layer, packed: Tensor, scales: Tensor) -> None:
        super().__init__()
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int32))
        self.register_buffer("bias", bias)


class Int8Linear(_Int8):
    """An `nn.Linear` of integers."""

    def __init__(self, layer: nn.Linear | QuantisedLinear) -> None:
        integers, scales = _by_rows(layer)
        super().__init__(layer, torch.ops.onednn.qlinear_prepack(integers.contiguous(), None), scales)

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        q, scale, zero = quantised_input(x.flatten(0, -2))
        weight = self.packed, self.scales, self.zeros, self.bias
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            q, scale, zero, *weight, 1.0, 0, x.dtype, "none", [], ""
        )
        return y.unflatten(0, x.shape[:-1])


class Int8Conv(_Int8):
    """An `nn.Conv2d` of integers."""

    def __init__(self, layer: nn.Conv2d | QuantisedConv) -> None:
        integers, scales = _by_rows(layer)
        assert isinstance(layer.padding, tuple)
        form = list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups
        packed = torch.ops.onednn.qconv_prepack(integers.contiguous(), scales, 1.0, 0, *form, None)
        super().__init__(layer, packed, scales)
        self.padding, self.stride, self.form = layer.padding, layer.stride[0], form

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ·, ·], channels last in memory."""
        q, scale, zero = quantised_input(x)
        weight = self.packed, self.scales, self.zeros, self.bias
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(
            q, scale, zero, *weight, *self.form, 1.0, 0, x.dtype, "none", [], ""
        )
        return y
