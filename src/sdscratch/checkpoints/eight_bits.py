"""Weights in 8 bits: which of a model's are written so, as what, and as layers that keep them so."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.changes import Change
from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.layouts import Part, Weight
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.source import Stored
from sdscratch.models.config import ModelConfig
from sdscratch.models.quantised import QuantisedConv, QuantisedLinear, quantised_rows
from sdscratch.tensorfiles.header import BLOCKS, INT8, TensorInfo
from sdscratch.tensorfiles.quantised import quantised_q8_0

__all__ = ["KINDS", "begun", "eight_bits", "ggml_type", "is_quantised", "read_integers", "scales_of"]

KINDS = ("int8", "q8_0")  # a scale a row, or one for every 32 numbers

# What stays as it is: a network's first and last layers, what tells it the time, and positions. They are a
# hundredth of all weights, and every error in them goes through all the rest.
KEPT = re.compile(
    r"(conv_in|conv_out|quant|positions|projection|guidance|time[12]|added[12])\..*|down\.0\.0\.weight"
)
PART = BLOCKS["Q8_0"][0]

# What stable-diffusion.cpp leaves unquantised in a U-Net and a text encoder: `tensor_should_be_converted`.
UNQUANTISED = re.compile(r"time_embed\.|label_emb\.|embedding")


def is_quantised(weight: Weight) -> bool:
    """Whether a weight is among those that 8 bits are for: matrices and kernels but for those kept."""
    return len(weight.shape) > 1 and not weight.transposed and not KEPT.fullmatch(weight.name)


def eight_bits(tensor: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Integers of the tensor's shape, and scales [rows, k]: float32 of `int8`, float16 of `q8_0`.

    Rows that blocks of 32 do not fill have one scale each in `q8_0`, too.

    Args:
        tensor: [rows, …].
    """
    if scales_of(tuple(tensor.shape), kind).dtype == "F32":
        return quantised_rows(tensor)
    blocks = quantised_q8_0(tensor).view(-1, BLOCKS["Q8_0"][1])
    scales = blocks[:, :2].contiguous().view(torch.float16)
    return blocks[:, 2:].contiguous().view(torch.int8).view(tensor.shape), scales.view(len(tensor), -1)


def scales_of(shape: tuple[int, ...], kind: str) -> TensorInfo:
    """Type and shape of a weight's scales."""
    row = math.prod(shape[1:])
    if kind == "int8" or row % PART:
        return TensorInfo("F32", (shape[0], 1))
    return TensorInfo("F16", (shape[0], row // PART))


def ggml_type(weight: Weight) -> str:
    """As what a weight stands in a GGUF file of Q8_0: as stable-diffusion.cpp would convert it from float16.

    Blocks lie along the last side, which a convolution's kernel does not fill.
    """
    sides = weight.ldm_shape
    if len(sides) == 1:
        return "F32"
    fits = sides[-1] % PART == 0 and not UNQUANTISED.search(weight.ldm)
    return "Q8_0" if fits else "F16"


class Files(Protocol):
    """What is asked here of a model (`model.ModelFiles`)."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def changes(self) -> tuple[Change, ...]: ...
    def where(self, weight: Weight) -> Stored: ...


def read_integers(files: Files, weight: Weight) -> tuple[Tensor, Tensor] | None:
    """A weight of 8 bits in our shape as it lies in its file, and its scales; None where it is no such, or
    where an add-on changes it."""
    stored = files.where(weight)
    if stored.info.dtype != INT8:
        return None
    if files.changes:
        tensor = weight.taken(stored.file.read(stored.name), files.layout)
        if any(change.apply(weight, tensor) is not tensor for change in files.changes):
            return None
    integers, scales = stored.file.read_integers(stored.name)
    index, count = weight.piece if files.layout == "ldm" else (0, 1)
    return weight.taken(integers, files.layout), scales.chunk(count)[index]


def begun(
    files: Files, part: Part, weights: Iterable[Weight], device: torch.device | str
) -> tuple[nn.Module, list[Weight]]:
    """A network that has those of its weights that stay in 8 bits, and the weights that it still lacks."""
    network, lacking = empty_network(part, files.config), []
    for weight in weights:
        name = weight.name.rpartition(".")[0]
        layer, read = network.get_submodule(name), read_integers(files, weight)
        if read is not None and type(layer) is nn.Linear:
            network.set_submodule(name, QuantisedLinear(layer, *(tensor.to(device) for tensor in read)))
        elif read is not None and type(layer) is nn.Conv2d:
            network.set_submodule(name, QuantisedConv(layer, *(tensor.to(device) for tensor in read)))
        else:
            lacking.append(weight)
    return network, lacking
