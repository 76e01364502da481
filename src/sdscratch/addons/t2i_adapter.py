"""T2I-Adapters as files, full and light: the published names, or diffusers'. torch comes with loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sdscratch.addons.control_files import OpenedFiles, load_weights, placed_weights
from sdscratch.checkpoints.layouts.rows import Shape, Weight
from sdscratch.checkpoints.layouts.t2i_adapter import adapter_weights
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.source import Stored
from sdscratch.errors import CheckpointError
from sdscratch.models.config import AdapterConfig
from sdscratch.tensorfiles.identify import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdscratch.models.t2i_adapter import Adapter

__all__ = ["ADAPTERS", "AdapterFile", "open_adapter"]

ADAPTERS = (Kind.T2I_ADAPTER, Kind.T2I_ADAPTER_LIGHT)
PREFIX = "adapter."
IN_DIFFUSERS = "body.0.resnets.0.block1.weight"


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """A T2I-Adapter of which nothing is in memory yet."""

    files: OpenedFiles
    config: AdapterConfig
    layout: Layout
    stored: Mapping[Weight, Stored]
    title: str = "T2I-Adapter"
    small: bool = False

    def load(self, device: torch.device, dtype: torch.dtype) -> Adapter:
        """The network, ready to run."""
        from sdscratch.models.t2i_adapter import Adapter

        reads = [(weight, partial(self.read, weight)) for weight in adapter_weights(self.config)]
        network = load_weights(lambda: Adapter(self.config), reads, device, dtype)
        assert isinstance(network, Adapter)
        return network

    def read(self, weight: Weight) -> Tensor:
        """One weight in our shape."""
        stored = self.stored[weight]
        return weight.taken(stored.file.read(stored.name), self.layout)


def open_adapter(files: OpenedFiles, model: ModelFiles) -> AdapterFile:
    """An adapter for a model.

    Raises:
        CheckpointError: incomplete, or made for another kind of model.
    """
    shapes = {name.removeprefix(PREFIX): stored.info.shape for name, stored in files.tensors.items()}
    layout: Layout = "diffusers" if IN_DIFFUSERS in shapes else "ldm"
    config = _config(files, model, shapes, layout)
    stem = PREFIX if layout == "diffusers" else ""  # the layout's own; a file has it or not
    own = {
        name if name.startswith(stem) else stem + name: stored
        for name, stored in files.tensors.items()
    }  # fmt: skip
    if layout == "ldm":
        own = {name.removeprefix(PREFIX): stored for name, stored in own.items()}
    renamed = OpenedFiles(files.path, own, files.config, files.metadata)
    weights = adapter_weights(config)
    stored = placed_weights(renamed, "a T2I-Adapter", weights, layout, "", model.name)
    return AdapterFile(files, config, layout, stored)


def _config(
    files: OpenedFiles, model: ModelFiles, shapes: Mapping[str, Shape], layout: Layout
) -> AdapterConfig:
    """The shape that fits the model, with the rest as the file's tensors tell it."""
    unet, downscale = model.config.unet, model.config.autoencoder.downscale
    channels = tuple(unet.channels * multiplier for multiplier in unet.multipliers)
    light = files.identity.kind is Kind.T2I_ADAPTER_LIGHT
    inputs = shapes.get("body.0.in_conv.weight" if light else "conv_in.weight", ())
    if len(inputs) != 4 or inputs[1] % downscale**2:
        raise CheckpointError(
            f"{files.path} is a T2I-Adapter for another kind of model: it takes {list(inputs)}, and "
            f"{model.name} has {downscale}×{downscale} pixels a position"
        )
    stem = "body.0.resnets" if layout == "diffusers" else "body.0.body"
    if light or layout == "diffusers":
        blocks = sum(f"{stem}.{i}.block1.weight" in shapes for i in range(64))
    else:  # the blocks of all levels, counted through
        blocks = sum(f"body.{i}.block1.weight" in shapes for i in range(256)) // len(channels)
    first = f"{stem}.0" if light or layout == "diffusers" else "body.0"
    kernel = shapes.get(f"{first}.block2.weight", (0, 0, 0, 0))[2]
    return AdapterConfig(channels, inputs[1] // downscale**2, max(blocks, 1), light, kernel, downscale)
