"""Random IP-Adapters and image encoders for a tiny model: as files, and as diffusers has them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.addons.ip_adapter import cross_attention_widths
from sdscratch.checkpoints.layouts.ip_adapter import image_encoder_weights, image_prompt_weights
from sdscratch.checkpoints.layouts.rows import Weight, inverted, joined
from sdscratch.models.image_prompt_config import ImageEncoderConfig, ImagePromptConfig
from support.checkpoints import TINY
from support.controlnets import control_tensors

__all__ = ["ENCODER", "PROMPTS", "encoder_of_diffusers", "stored", "write_encoder", "write_prompt"]

ENCODER = ImageEncoderConfig(32, 3, 4, 64, 24, 28, 7)
WIDTHS = cross_attention_widths(TINY.unet)
PROMPTS = {
    "classic": ImagePromptConfig("classic", 24, 32, 4, WIDTHS),
    "plus": ImagePromptConfig("plus", 32, 32, 5, WIDTHS, 48, 4, 2, 64, 192),
    "full": ImagePromptConfig("full", 32, 32, 0, WIDTHS),
}


def stored(weights: tuple[Weight, ...], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors by the published names; those of attention large enough to be seen."""
    tensors = control_tensors(weights, seed)
    tensors = {w: t * 3.0 if w.name.startswith(("keys.", "values.")) else t for w, t in tensors.items()}
    return {
        name: joined({weight: tensors[weight] for weight in sharing}, "ldm").contiguous()
        for name, sharing in inverted(weights, "ldm").items()
    }


def write_prompt(path: Path, kind: str, seed: int = 0) -> Path:
    """An IP-Adapter's file."""
    save_file(stored(image_prompt_weights(PROMPTS[kind]), seed), path)
    return path


def write_encoder(folder: Path, config: ImageEncoderConfig = ENCODER) -> Path:
    """An image encoder's folder, as transformers saves one."""
    folder.mkdir(parents=True)
    tensors = stored(image_encoder_weights(config))
    places = (config.side // config.patch) ** 2 + 1
    tensors["vision_model.embeddings.position_ids"] = torch.arange(places)[None]  # of old files
    save_file(tensors, folder / "model.safetensors")
    told = {"num_attention_heads": config.heads, "hidden_act": config.activation}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **told}))
    return folder


def encoder_of_diffusers(config: ImageEncoderConfig = ENCODER) -> tuple[Any, Any]:
    """transformers' encoder with the same weights, and what makes its pixels of a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    network = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.side,
            patch_size=config.patch,
            projection_dim=config.projection,
            hidden_act=config.activation,
        )
    )
    network.load_state_dict(stored(image_encoder_weights(config)), strict=False)
    size = {"shortest_edge": config.side}
    crop = {"height": config.side, "width": config.side}
    return network.eval().requires_grad_(False), CLIPImageProcessorPil(size=size, crop_size=crop)
