"""Random ControlNets and adapters for a model's shape, as diffusers has them and as files of every layout."""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts.controlnet import PREFIX, controlnet_weights
from sdscratch.checkpoints.layouts.rows import Weight
from sdscratch.checkpoints.layouts.t2i_adapter import adapter_weights
from sdscratch.models.config import AdapterConfig, ControlNetConfig, ModelConfig
from support.checkpoints import TINY
from support.reference import sketch

__all__ = [
    "TINY_ADAPTER",
    "TINY_CONTROL",
    "TINY_LIGHT",
    "adapter_of_diffusers",
    "control_tensors",
    "controlnet_of_diffusers",
    "hint",
    "write_control",
]

TINY_CONTROL = ControlNetConfig(TINY.unet, hint_widths=(4, 8, 8, 16))
TINY_ADAPTER = AdapterConfig((16, 32, 64, 64))
TINY_LIGHT = AdapterConfig((16, 32, 64, 64), blocks=4, light=True, kernel=3)


def control_tensors(weights: Iterable[Weight], seed: int = 0) -> dict[Weight, Tensor]:
    """Random float32 weights that keep what goes through them near one."""
    tensors = {}
    for weight in weights:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {weight.name}".encode()))
        values = torch.randn(weight.shape, generator=generator)
        last = weight.name.split(".")[-2:][0]
        if "norm" in last:
            values = values * 0.1 + (1.0 if weight.name.endswith("weight") else 0.0)
        elif len(weight.shape) == 1:
            values = values * 0.02
        else:
            values = values / math.sqrt(math.prod(weight.shape[1:]))
        tensors[weight] = values
    return tensors


def weights_of(config: ControlNetConfig | AdapterConfig) -> tuple[Weight, ...]:
    """All weights of a ControlNet or an adapter."""
    return controlnet_weights(config) if isinstance(config, ControlNetConfig) else adapter_weights(config)


def write_control(
    path: Path,
    config: ControlNetConfig | AdapterConfig,
    seed: int = 0,
    *,
    layout: str = "ldm",
    prefix: bool = True,
) -> Path:
    """A file, or of layout "folder" a diffusers folder.

    Args:
        prefix: whether names begin with what the layout's own do.
    """
    tensors = control_tensors(weights_of(config), seed)
    stem = PREFIX if isinstance(config, ControlNetConfig) else "adapter."
    if layout == "ldm":
        named = {weight.ldm: tensor.reshape(weight.ldm_shape) for weight, tensor in tensors.items()}
    else:
        named = {weight.diffusers: tensor for weight, tensor in tensors.items()}
    if not prefix:
        named = {name.removeprefix(stem): tensor for name, tensor in named.items()}
    if layout == "folder":
        path.mkdir()
        name = "ControlNetModel" if isinstance(config, ControlNetConfig) else "T2IAdapter"
        told = {"_class_name": name}
        if isinstance(config, ControlNetConfig):
            order = "bgr" if config.bgr else "rgb"
            told |= {"controlnet_conditioning_channel_order": order, "global_pool_conditions": config.pooled}
        (path / "config.json").write_text(json.dumps(told))
        save_file(named, path / "diffusion_pytorch_model.safetensors")
    else:
        save_file(named, path)
    return path


def controlnet_of_diffusers(config: ControlNetConfig = TINY_CONTROL, seed: int = 0) -> Any:
    """diffusers' network of the very weights that `write_control` writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import ControlNetModel

    unet = to_folder(replace(ModelConfig(), unet=config.unet), 512)["unet/config.json"]
    names = ("block_out_channels", "layers_per_block", "cross_attention_dim", "norm_num_groups")
    network = ControlNetModel(
        **{name: unet[name] for name in names},
        down_block_types=tuple(unet["down_block_types"]),
        attention_head_dim=unet["attention_head_dim"],
        conditioning_embedding_out_channels=config.hint_widths,
        controlnet_conditioning_channel_order="bgr" if config.bgr else "rgb",
        global_pool_conditions=config.pooled,
    )
    return loaded(network, config, seed)


def adapter_of_diffusers(config: AdapterConfig, seed: int = 0) -> Any:
    """The same of an adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import T2IAdapter

    network = T2IAdapter(
        in_channels=config.hint_channels,
        channels=list(config.channels[:-1] if config.light else config.channels),
        num_res_blocks=config.blocks,
        downscale_factor=config.downscale,
        adapter_type="light_adapter" if config.light else "full_adapter",
    )
    return loaded(network, config, seed)


def loaded(network: Any, config: ControlNetConfig | AdapterConfig, seed: int) -> Any:
    """A network of diffusers' with our random weights."""
    tensors = control_tensors(weights_of(config), seed)
    network.load_state_dict({weight.diffusers: tensor for weight, tensor in tensors.items()}, strict=True)
    return network.eval().requires_grad_(False)


def hint(width: int = 72, height: int = 88, seed: int = 0) -> Image.Image:
    """A picture to follow, of another size than what is drawn."""
    return sketch(width + seed, height)
