"""Training what steers a U-Net from beside it, while the U-Net stays as it is: ControlNet, T2I-Adapter.

Both learn the U-Net's own task, to denoise, with a hint of the picture at hand (Zhang et al. 2023, eq. 5; Mou
et al. 2023, eq. 4). A ControlNet begins as a copy of the U-Net's way down, and all that it adds passes
convolutions that begin as 0; an adapter begins small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.layouts.controlnet import controlnet_weights
from sdscratch.checkpoints.layouts.rows import Weight, joined
from sdscratch.checkpoints.layouts.t2i_adapter import adapter_weights
from sdscratch.checkpoints.writer import PROVENANCE, SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.files import atomic_write
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import AdapterConfig, ControlNetConfig, ModelConfig
from sdscratch.models.control import Control
from sdscratch.models.controlnet import ControlNet, HintedControlNet
from sdscratch.models.t2i_adapter import Adapter, HintedAdapter
from sdscratch.models.unet import UNet

__all__ = ["Steered", "adapter_for", "controlnet_for", "hinted", "save_control", "stored_weights"]

HINT_WIDTHS = (16, 32, 96, 256, 512)  # of a ControlNet's hint encoder: the published ones', and one more


class Steered(nn.Module):
    """A frozen U-Net, and a control that learns beside it."""

    def __init__(self, unet: UNet, control: Adapter | ControlNet) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.control = control.requires_grad_(True)

    def forward(self, noisy: Tensor, timesteps: Tensor, told: Conditioning, hints: Tensor) -> Tensor:
        """[n, c, h, w], [n], what the prompts say, [n, k, H, W] in 0 to 1 → what the U-Net predicts."""
        controls = (hinted(self.control, hints),)
        prediction: Tensor = self.unet(noisy, timesteps, Conditioning(told.context, controls=controls))
        return prediction


def hinted(control: Adapter | ControlNet, hints: Tensor) -> Control:
    """A control with its hint, at full weight; gradients pass.

    Args:
        hints: [n, k, H, W] in 0 to 1; of three channels where one is taken, their mean is.
    """
    if control.config.hint_channels == 1 and hints.shape[1] > 1:
        hints = hints.mean(1, keepdim=True)
    if isinstance(control, Adapter):
        return HintedAdapter(control(hints))
    return HintedControlNet(control, control.encode_hint(hints), hints.new_ones(1))


def adapter_for(config: ModelConfig, *, hint_channels: int = 3, light: bool = False) -> Adapter:
    """An untrained T2I-Adapter for a model: the published form, of the model's widths."""
    unet = config.unet
    channels = tuple(unet.channels * multiplier for multiplier in unet.multipliers)
    blocks, kernel = (4, 3) if light else (2, 1)
    sizes = AdapterConfig(channels, hint_channels, blocks, light, kernel, config.autoencoder.downscale)
    return Adapter(sizes)


def controlnet_for(config: ModelConfig, unet: UNet, *, hint_channels: int = 3) -> ControlNet:
    """An untrained ControlNet for a model, that changes nothing yet."""
    halvings = config.autoencoder.downscale.bit_length() - 1
    network = ControlNet(ControlNetConfig(config.unet, hint_channels, HINT_WIDTHS[: halvings + 1]))
    own = network.state_dict()
    shared = {name: weight for name, weight in unet.state_dict().items() if name in own}
    network.load_state_dict(shared, strict=False)
    last: Sequence[nn.Module] = (*network.zero, network.zero_middle, network.hint.convs[-1])
    for layer in last:
        for weight in layer.parameters():
            nn.init.zeros_(weight)
    return network


def stored_weights(control: Adapter | ControlNet) -> tuple[Weight, ...]:
    """What a control's file holds."""
    if isinstance(control, Adapter):
        return adapter_weights(control.config)
    return controlnet_weights(control.config)


def save_control(
    path: Path,
    control: Adapter | ControlNet,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    overwrite: bool = True,
) -> None:
    """Write a control as one file, under the names of the published ones.

    Raises:
        UsageError: the name is taken and `overwrite` is not set.
        SdscratchError: the operating system refuses.
    """
    state = control.state_dict()
    entries = [
        Entry(weight.ldm, SAFETENSORS_NAMES[dtype], weight.ldm_shape, partial(_stored, weight, state))
        for weight in stored_weights(control)
    ]
    metadata = {"format": "pt", PROVENANCE: json.dumps(provenance, sort_keys=True)}
    with atomic_write(path, overwrite=overwrite) as file:
        write_safetensors(file, entries, metadata, lambda _: None)


def _stored(weight: Weight, state: Mapping[str, Tensor]) -> Tensor:
    return joined({weight: state[weight.name].detach().cpu()}, "ldm")
