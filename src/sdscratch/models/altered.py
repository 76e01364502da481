"""A U-Net in which something is done otherwise: the very modules, with others in a few places.

`models.unet` knows nothing of it, and a plain run pays nothing: what is altered is a second network, which
shares all weights with the first, whatever fast forms its modules are in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from sdscratch.errors import UsageError
from sdscratch.models.config import UNetConfig, unet_groups
from sdscratch.models.unet import SpatialTransformer, TransformerBlock, UNet

__all__ = ["Alteration", "FreeU", "FreeUFactors", "altered", "backbone_widths", "low_scaled"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class FreeUFactors:
    """What FreeU multiplies by, at the widest features of the way up (1) and at the next narrower ones (2).

    Attributes:
        b1, b2: half of the features' channels, where these are strongest; 1 leaves them alone.
        s1, s2: the lowest frequencies of the skips; 1 leaves them alone.
    """

    b1: float
    b2: float
    s1: float
    s2: float


@dataclass(frozen=True)
class Alteration:
    """What is done otherwise.

    Attributes:
        freeu: None without it.
        perturbed: in the middle, self-attention mixes nothing: softmax(QKᵀ/√d) is the identity
            (Ahn et al. 2024, section 4: PSA(Q, K, V) = V).
    """

    freeu: FreeUFactors | None = None
    perturbed: bool = False

    def of(self, unet: UNet) -> UNet:
        """The altered U-Net; the very one where nothing is done otherwise.

        Raises:
            UsageError: perturbed, and there is no self-attention in the middle.
        """
        others: dict[str, nn.Module] = {}
        if self.perturbed:
            others |= _unmixed(unet)
        if self.freeu is not None:
            others |= _groups_with_freeu(unet, self.freeu)
        return altered(unet, others)


def altered(network: M, others: Mapping[str, nn.Module]) -> M:
    """The same network of the very modules, but for those named: these are others, or new."""
    if not others:
        return network
    clone = copy.copy(network)
    clone.__dict__["_modules"] = dict(network._modules)
    inner: dict[str, dict[str, nn.Module]] = {}
    for name, module in others.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = module
        else:
            clone._modules[first] = module
    for name, modules in inner.items():
        clone._modules[name] = altered(network.get_submodule(name), modules)
    return clone


# Perturbed attention


class Unmixed(nn.Module):
    """`DotProductAttention` of which every token sees itself alone."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Values as they are."""
        return value


def _unmixed(unet: UNet) -> dict[str, nn.Module]:
    """The self-attentions of the middle, by the names of what mixes in them."""
    transformers = {
        name: module for name, module in unet.named_modules() if isinstance(module, SpatialTransformer)
    }
    names = [
        f"{name}.{inner}.self_attention.mix"
        for name, module in transformers.items()
        if name.startswith("middle.")
        for inner, block in module.named_children()
        if isinstance(block, TransformerBlock)
    ]
    if not names:
        raise UsageError(
            "--pag-scale perturbs the attention in the middle of the U-Net, and this model has none there; "
            "leave it out"
        )
    return {name: Unmixed() for name in names}


# FreeU


class FreeU(nn.Module):
    """Features and the skip that they meet, concatenated, each made stronger or weaker.

    Si et al. 2023 (FreeU), section 3, in its second version. The features x: half of their channels times
    α = (b − 1)·(m − min m)/(max m − min m) + 1, m being the mean of all their channels. The skip h:
    FFT⁻¹(β ⊙ FFT(h)), β being s at the lowest frequencies and else 1.

    Args:
        width: channels of the features, which come first.
        backbone: b.
        skip: s.
    """

    def __init__(self, width: int, backbone: float, skip: float) -> None:
        super().__init__()
        self.width, self.backbone, self.skip = width, backbone, skip

    def forward(self, x: Tensor) -> Tensor:
        """[n, width + skip's channels, h, w] → the same shape."""
        features, skip = x[:, : self.width], x[:, self.width :]
        mean = features.mean(1, keepdim=True)
        low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
        # of features that are alike everywhere there is no map: nothing grows
        strength = (mean - low) / (high - low).clamp_min(torch.finfo(mean.dtype).tiny)
        half = self.width // 2
        grown = features[:, :half] * ((self.backbone - 1.0) * strength + 1.0)
        return torch.cat([grown, features[:, half:], low_scaled(skip, self.skip)], dim=1)


def low_scaled(x: Tensor, factor: float) -> Tensor:
    """[n, c, h, w] with its frequencies 0 and −1 along both axes times a factor.

    The four middle ones of a shifted spectrum, as the authors' code has it; since 1 is not among them, the
    real part is what counts. Halves are transformed in float32: their own transforms take powers of two only.
    """
    wide = x if x.dtype.itemsize >= 4 else x.float()
    spectrum = torch.fft.fft2(wide)
    for row in {0, x.shape[2] - 1}:
        for column in {0, x.shape[3] - 1}:
            spectrum[:, :, row, column] *= factor
    back: Tensor = torch.fft.ifft2(spectrum).real
    return back.to(x.dtype)


def backbone_widths(config: UNetConfig) -> list[int]:
    """How wide the features are that meet a skip, by the group of the way up."""
    _, middle, up = unet_groups(config)
    return [before[-1].outputs for before, _ in pairwise([middle[-1], *up])]


def _groups_with_freeu(unet: UNet, factors: FreeUFactors) -> dict[str, nn.Module]:
    """The groups of the way up, by name, that begin with `FreeU`.

    The authors' code names widths, 1280 and 640 in Stable Diffusion 1.x: the two greatest.
    """
    widths = backbone_widths(unet.config)
    chosen = dict(
        zip(
            sorted(set(widths), reverse=True),
            [(factors.b1, factors.s1), (factors.b2, factors.s2)],
            strict=False,
        )
    )
    groups: dict[str, nn.Module] = {}
    for index, width in enumerate(widths):
        if width in chosen:
            group = unet.get_submodule(f"up.{index}")
            assert isinstance(group, nn.ModuleList)
            groups[f"up.{index}"] = nn.ModuleList([FreeU(width, *chosen[width]), *group])
    return groups
