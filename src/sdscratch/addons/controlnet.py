"""ControlNets as files: LDM's layout, diffusers' folder or file, differences from a model, control-LoRA.

    LDM          control_model.input_blocks.…, input_hint_block.…, zero_convs.…, middle_block_out.0; the
                 prefix may be missing, and a whole model may stand beside it
    diffusers    down_blocks.…, controlnet_cond_embedding.…, controlnet_down_blocks.…, …mid_block
    difference   LDM's, with a tensor `difference`: what the U-Net has as well is stored as its distance
                 from the model drawn with
    control-LoRA LDM's without prefix, with a tensor `lora_controlnet`: the model's own weights plus
                 up · down, or whole tensors in their place (Stability AI 2023)

No torch before a network is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from sdscratch.addons.control_files import OpenedFiles, load_weights, placed_weights
from sdscratch.checkpoints.layouts.controlnet import PREFIX, controlnet_weights, hint_widths, of_unet
from sdscratch.checkpoints.layouts.rows import Weight
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.source import Stored
from sdscratch.errors import CheckpointError
from sdscratch.models.config import ControlNetConfig
from sdscratch.show import listed
from sdscratch.tensorfiles.identify import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sdscratch.models.controlnet import ControlNet

__all__ = ["CONTROLNETS", "ControlNetFile", "open_controlnet"]

CONTROLNETS = (Kind.CONTROLNET, Kind.CONTROLNET_DIFFERENCE, Kind.CONTROL_LORA)
MARKS = ("lora_controlnet", "difference")  # tensors that say what the others mean
A_CONTROLNET = "a ControlNet"


@dataclass(frozen=True, eq=False)
class ControlNetFile:
    """A ControlNet of which nothing is in memory yet.

    Attributes:
        stored: whole tensors.
        factors: up and down, whose product is added to the model's weight (control-LoRA).
        base: the model whose weights `added` and `factors` are added to, and those that neither names are.
        added: weights of which `stored` is the difference from the model's.
    """

    files: OpenedFiles
    config: ControlNetConfig
    layout: Layout
    stored: Mapping[Weight, Stored]
    factors: Mapping[Weight, tuple[Stored, Stored]] = field(default_factory=dict)
    added: frozenset[Weight] = frozenset()
    base: ModelFiles | None = None
    title: str = "ControlNet"
    small: bool = False

    def load(self, device: torch.device, dtype: torch.dtype) -> ControlNet:
        """The network, ready to run."""
        from sdscratch.models.controlnet import ControlNet

        reads = [(weight, partial(self.read, weight)) for weight in controlnet_weights(self.config)]
        network = load_weights(lambda: ControlNet(self.config), reads, device, dtype)
        assert isinstance(network, ControlNet)
        return network

    def read(self, weight: Weight) -> Tensor:
        """One weight in our shape."""
        stored = self.stored.get(weight)
        own = None if stored is None else weight.taken(stored.file.read(stored.name), self.layout)
        if own is not None and weight not in self.added:
            return own
        assert self.base is not None
        model = self.base.read(of_unet(weight)).float()
        if own is not None:
            return model + own.float()
        if weight not in self.factors:
            return model
        up, down = (each.file.read(each.name).float().flatten(1) for each in self.factors[weight])
        return model + (up @ down).reshape(model.shape)


def open_controlnet(files: OpenedFiles, model: ModelFiles) -> ControlNetFile:
    """A ControlNet for a model.

    Raises:
        CheckpointError: incomplete, made for another kind of model, or of a form that is not known.
    """
    kind = files.identity.kind
    if kind in (Kind.CONTROL_LORA, Kind.CONTROLNET_DIFFERENCE) and model.config.unet.in_channels != (
        model.config.unet.latent_channels
    ):
        raise CheckpointError(
            f"{files.path} is {kind.value}, added to the model's weights, and {model.name} has "
            "other channels; draw with an ordinary model"
        )
    layout: Layout = "ldm"
    if any(name.startswith("controlnet_cond_embedding.") for name in files.tensors):
        layout = "diffusers"
    config = _config(files, model, layout)
    if kind is Kind.CONTROL_LORA:
        return _control_lora(files, model, config)
    prefixed = any(name.startswith(PREFIX) for name in files.tensors)
    renamed = files if prefixed or layout == "diffusers" else _with_prefix(files)
    weights = controlnet_weights(config)
    plain = replace(renamed, tensors={n: s for n, s in renamed.tensors.items() if n.startswith(PREFIX)})
    if layout == "diffusers":
        plain = renamed
    stored = placed_weights(plain, A_CONTROLNET, weights, layout, "", model.name)
    added: frozenset[Weight] = frozenset()
    if kind is Kind.CONTROLNET_DIFFERENCE:
        added = frozenset(weight for weight in weights if of_unet(weight) in model.stored)
    return ControlNetFile(files, config, layout, stored, added=added, base=_plain(model) if added else None)


def _config(files: OpenedFiles, model: ModelFiles, layout: Layout) -> ControlNetConfig:
    """The shape that fits the model, with what the file says of itself."""
    unet = model.config.unet
    shapes = {name.removeprefix(PREFIX): stored.info.shape for name, stored in files.tensors.items()}
    channels, widths = hint_widths(shapes)
    if not widths or 0 in (channels, *widths):
        raise CheckpointError(
            f"{files.path} is a ControlNet without an encoder of its hint; it is incomplete"
        )
    downscale = 1 << (len(widths) - 1)
    if downscale != model.config.autoencoder.downscale:
        raise CheckpointError(
            f"{files.path} is a ControlNet for latents of {downscale}×{downscale} pixels a position, but "
            f"{model.name} has {model.config.autoencoder.downscale}; take one made for this model"
        )
    said = files.config
    return ControlNetConfig(
        replace(unet, in_channels=unet.latent_channels),
        channels,
        widths,
        bgr=said.get("controlnet_conditioning_channel_order") == "bgr",
        # the published file for shuffled pictures does not say it; the web UIs go by its name, too
        pooled=bool(said.get("global_pool_conditions", layout == "ldm" and "shuffle" in files.name.lower())),
    )


def _with_prefix(files: OpenedFiles) -> OpenedFiles:
    """A file whose names lack their prefix, with it."""
    named = {name if name in MARKS else PREFIX + name: stored for name, stored in files.tensors.items()}
    return replace(files, tensors=named)


def _plain(model: ModelFiles) -> ModelFiles:
    """The model without its add-ons: a ControlNet began as the model itself."""
    return replace(model, changes=())


def _control_lora(files: OpenedFiles, model: ModelFiles, config: ControlNetConfig) -> ControlNetFile:
    """Whole tensors, products, and for the rest the model's own weights."""
    prefixed = any(name.startswith(PREFIX) for name in files.tensors)
    own = {name if prefixed else PREFIX + name: stored for name, stored in files.tensors.items()}
    for mark in MARKS:
        own.pop(PREFIX + mark, None)
        own.pop(mark, None)
    stored: dict[Weight, Stored] = {}
    factors: dict[Weight, tuple[Stored, Stored]] = {}
    missing = []
    for weight in controlnet_weights(config):
        module = weight.ldm.removesuffix(".weight")
        if weight.ldm in own:
            stored[weight] = _fitting(files, weight, own.pop(weight.ldm))
        elif weight.ldm.endswith(".weight") and f"{module}.up" in own and f"{module}.down" in own:
            up, down = own.pop(f"{module}.up"), own.pop(f"{module}.down")
            factors[weight] = _multiplied(files, weight, up, down)
        elif of_unet(weight) not in model.stored:
            missing.append(weight.ldm)
    if missing:
        raise CheckpointError(f"{files.path} is no whole control-LoRA: it lacks {listed(missing)}")
    if own:
        raise CheckpointError(
            f"{files.path} holds {listed(list(own))}, which a control-LoRA for {model.name} has no place for"
        )
    return ControlNetFile(files, config, "ldm", stored, factors, base=_plain(model), title="control-LoRA")


def _fitting(files: OpenedFiles, weight: Weight, stored: Stored) -> Stored:
    if not weight.fits(stored.info.shape, "ldm"):
        raise _misfit(files, weight, list(stored.info.shape))
    return stored


def _multiplied(files: OpenedFiles, weight: Weight, up: Stored, down: Stored) -> tuple[Stored, Stored]:
    sizes: Callable[[tuple[int, ...]], int] = lambda shape: _product(shape[1:])  # noqa: E731
    rows, columns = weight.shape[0], sizes(weight.shape)
    found = (up.info.shape[:1], (sizes(down.info.shape),), sizes(up.info.shape) == down.info.shape[0])
    if found != ((rows,), (columns,), True):
        raise _misfit(files, weight, [*up.info.shape, "×", *down.info.shape])
    return up, down


def _product(sides: tuple[int, ...]) -> int:
    result = 1
    for side in sides:
        result *= side
    return result


def _misfit(files: OpenedFiles, weight: Weight, found: list[object]) -> CheckpointError:
    return CheckpointError(
        f"{files.path} is a control-LoRA for another kind of model: {weight.ldm.removeprefix(PREFIX)} is "
        f"{' '.join(map(str, found))}, expected {list(weight.shape)}"
    )
