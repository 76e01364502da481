"""Networks where nothing is learned: each module in the form that runs fastest here, made once after loading.

Each computes what the module computes that it replaces, to rounding. Most are for the CPU, where oneDNN runs
the products; a GPU's libraries choose forms of their own. What oneDNN has no products for is `widened`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sdscratch.fast.attention import swap_attention
from sdscratch.fast.int8 import swap_integers
from sdscratch.fast.kernels import BlockedFeedForward, PackedConv, Remembering, TransposedUpsample
from sdscratch.fast.processor import multiplies
from sdscratch.fast.unet import FastUNet
from sdscratch.fast.widened import widen
from sdscratch.fast.winograd import Scratch, WinogradConv
from sdscratch.hardware import device_kind
from sdscratch.models.layers import Upsample
from sdscratch.models.unet import FeedForward, TransformerBlock, UNet

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


def prepare(
    network: nn.Module, freed: Callable[[], None] = lambda: None, *, integers: bool = False
) -> nn.Module:
    """A network as it runs fastest; elsewhere than on a CPU, a U-Net as a `FastUNet`, and nothing else.

    Its modules are replaced in place, and the network can only compute from now on: not learn, nor move, nor
    be saved.

    Args:
        freed: called whenever a module has been replaced and its weights are free.
        integers: 8-bit ones in the products that gain by it, an approximation (`int8`).

    Returns:
        The network itself, or a U-Net made of its modules.
    """
    network = fast_unets(network)
    swap_attention(network)
    if integers:
        swap_integers(network, freed)
    widen(network)
    scratch = Scratch()
    # names, not modules: what is replaced must be gone before the next is made, or all stood here twice
    for name in _replaceable(network):
        module = network.get_submodule(name)
        weight = next(module.parameters(recurse=True), None)
        if weight is None or device_kind(weight.device) != "cpu":
            continue
        half = weight.dtype == torch.bfloat16
        match module:
            case TransformerBlock():
                for layer in ("cross_attention.key", "cross_attention.value"):
                    network.set_submodule(f"{name}.{layer}", Remembering(module.get_submodule(layer)))
            case _ if not multiplies(weight.dtype):
                continue
            case Upsample() if isinstance(module.conv, nn.Conv2d):
                network.set_submodule(name, TransposedUpsample(module, freed))
            case FeedForward() if half and plain_layers(module.expand, module.contract):
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


def fast_unets(network: nn.Module) -> nn.Module:
    """Replace U-Nets, the network itself or parts of it."""
    if isinstance(network, UNet):
        return FastUNet(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, UNet):
            network.set_submodule(name, FastUNet(module))
    return network


def plain_layers(*layers: nn.Module) -> bool:
    """Whether none of these layers has another form already."""
    return all(type(layer) is nn.Linear for layer in layers)


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
