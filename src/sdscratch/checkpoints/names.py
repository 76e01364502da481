"""How files spell names beyond the one spelling of `layouts`, and what they hold beside the weights.

This module imports no torch.

A diffusers folder is many files; a name in it is written here with its subfolder: `unet/conv_in.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Literal

from sdscratch.models.config import ScheduleConfig

__all__ = ["Layout", "canonical", "ema_name", "flagged", "is_extra"]

Layout = Literal["ldm", "diffusers"]

# Patterns of a name's beginning (or of all of it), and what we call it instead.
SPELLINGS: Mapping[Layout, tuple[tuple[str, str], ...]] = {
    "ldm": (
        # the text encoder without its inner wrapper (old CLIP layout)
        (
            r"cond_stage_model\.transformer\.(?=embeddings\.|encoder\.|final_layer_norm\.)",
            "cond_stage_model.transformer.text_model.",
        ),
        (r"vae\.(?=encoder\.|decoder\.|quant_conv\.|post_quant_conv\.)", "first_stage_model."),
        # an autoencoder's own file
        (r"(?=encoder\.|decoder\.|quant_conv\.|post_quant_conv\.)", "first_stage_model."),
    ),
    "diffusers": (
        (
            r"text_encoder/(?=embeddings\.|encoder\.|final_layer_norm\.)",
            "text_encoder/text_model.",
        ),  # transformers ≥ 5
        # the autoencoder's attention before diffusers 0.15
        (r"(vae/.*\.attentions\.0\.)query\.", r"\1to_q."),
        (r"(vae/.*\.attentions\.0\.)key\.", r"\1to_k."),
        (r"(vae/.*\.attentions\.0\.)value\.", r"\1to_v."),
        (r"(vae/.*\.attentions\.0\.)proj_attn\.", r"\1to_out.0."),
    ),
}
# What other programs keep beside the weights; nothing here is needed to make a picture.
EXTRAS: Mapping[Layout, re.Pattern[str]] = {
    "ldm": re.compile(
        r"(.*\.)?position_ids"
        r"|(alphas|sqrt|betas|log_one|posterior|lvlb|logvar|scale_factor)\w*"  # the schedule's buffers
        r"|(first_stage_model\.)?model_ema\..*"
        r"|(first_stage_model\.|vae\.)?loss\..*"  # the autoencoder's discriminator and perceptual network
        r"|cond_stage_model\.((.*\.)?logit_scale|.*text_projection.*|transformer\.vision_model\..*)"
        r"|v_pred|ztsnr"  # flags, whose presence says how the model was trained
        r"|embedding_manager\..*|global_step|epoch|optimizer.*|lr_scheduler.*|callbacks.*"
    ),
    "diffusers": re.compile(r"(.*[./])?position_ids|text_encoder/(text_projection.*|logit_scale)"),
}


def canonical(name: str, layout: Layout) -> str:
    """A file's name for a tensor in the one spelling that `weights` uses."""
    for pattern, replacement in SPELLINGS[layout]:
        renamed, matched = re.subn(rf"\A{pattern}", replacement, name, count=1)
        if matched:
            return renamed
    return name


def is_extra(name: str, layout: Layout) -> bool:
    """Whether this is known to be no weight: a buffer, an optimizer's state, an average kept beside."""
    return EXTRAS[layout].fullmatch(name) is not None


def flagged(names: Container[str]) -> ScheduleConfig:
    """SD 1.x's schedule with what empty tensors say by being there, as ComfyUI reads them."""
    return ScheduleConfig(prediction="v" if "v_pred" in names else "epsilon", zero_snr="ztsnr" in names)


def ema_name(ldm: str) -> str | None:
    """What an LDM file calls the moving average of a U-Net weight; None for weights that have none."""
    inner = ldm.removeprefix("model.")
    return f"model_ema.{inner.replace('.', '')}" if inner.startswith("diffusion_model.") else None
