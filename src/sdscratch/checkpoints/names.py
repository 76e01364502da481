"""What modules are called in our networks, in LDM's single files and in diffusers' folders: tables.

Each table names one block's modules; `layouts` walks a model's topology with them. Below them stand the
older spellings that a reader meets, and what other programs keep beside the weights. This module imports
no torch.

A diffusers folder is many files; a name in it is written here with its subfolder: `unet/conv_in.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

__all__ = ["Layout", "Names", "canonical", "ema_name", "is_extra"]

Layout = Literal["ldm", "diffusers"]
Names = Mapping[str, tuple[str, str]]  # our module: (LDM's, diffusers')

UNET_RESIDUAL: Names = {
    "norm1": ("in_layers.0", "norm1"),
    "conv1": ("in_layers.2", "conv1"),
    "time": ("emb_layers.1", "time_emb_proj"),
    "norm2": ("out_layers.0", "norm2"),
    "conv2": ("out_layers.3", "conv2"),
    "skip": ("skip_connection", "conv_shortcut"),
}
UNET_TRANSFORMER: Names = {
    ours: (theirs, theirs)  # diffusers kept LDM's names here
    for ours, theirs in {
        "norm": "norm",
        "project_in": "proj_in",
        "block.norm1": "transformer_blocks.0.norm1",
        "block.self_attention.query": "transformer_blocks.0.attn1.to_q",
        "block.self_attention.key": "transformer_blocks.0.attn1.to_k",
        "block.self_attention.value": "transformer_blocks.0.attn1.to_v",
        "block.self_attention.out": "transformer_blocks.0.attn1.to_out.0",
        "block.norm2": "transformer_blocks.0.norm2",
        "block.cross_attention.query": "transformer_blocks.0.attn2.to_q",
        "block.cross_attention.key": "transformer_blocks.0.attn2.to_k",
        "block.cross_attention.value": "transformer_blocks.0.attn2.to_v",
        "block.cross_attention.out": "transformer_blocks.0.attn2.to_out.0",
        "block.norm3": "transformer_blocks.0.norm3",
        "block.feed_forward.expand": "transformer_blocks.0.ff.net.0.proj",
        "block.feed_forward.contract": "transformer_blocks.0.ff.net.2",
        "project_out": "proj_out",
    }.items()
}
UNET_DOWN: Names = {"conv": ("op", "conv")}
UNET_UP: Names = {"conv": ("conv", "conv")}
UNET_ENDS: Names = {
    "time1": ("time_embed.0", "time_embedding.linear_1"),
    "time2": ("time_embed.2", "time_embedding.linear_2"),
    "down.0.0": ("input_blocks.0.0", "conv_in"),
    "norm_out": ("out.0", "conv_norm_out"),
    "conv_out": ("out.2", "conv_out"),
}

VAE_RESIDUAL: Names = {
    "norm1": ("norm1", "norm1"),
    "conv1": ("conv1", "conv1"),
    "norm2": ("norm2", "norm2"),
    "conv2": ("conv2", "conv2"),
    "skip": ("nin_shortcut", "conv_shortcut"),
}
VAE_ATTENTION: Names = {
    "norm": ("norm", "group_norm"),
    "query": ("q", "to_q"),
    "key": ("k", "to_k"),
    "value": ("v", "to_v"),
    "out": ("proj_out", "to_out.0"),
}
VAE_ENDS: Names = {
    "conv_in": ("conv_in", "conv_in"),
    "norm_out": ("norm_out", "conv_norm_out"),
    "conv_out": ("conv_out", "conv_out"),
}
VAE_RESAMPLE: Names = {"conv": ("conv", "conv")}
ENCODER_QUANT: Names = {"quant": ("quant_conv", "quant_conv")}
DECODER_QUANT: Names = {"quant": ("post_quant_conv", "post_quant_conv")}

TEXT_LAYER: Names = {
    ours: (theirs, theirs)
    for ours, theirs in {
        "norm1": "layer_norm1",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.out_proj",
        "norm2": "layer_norm2",
        "expand": "mlp.fc1",
        "contract": "mlp.fc2",
    }.items()
}
TEXT_ENDS: Names = {
    "tokens": ("embeddings.token_embedding", "embeddings.token_embedding"),
    "positions": ("embeddings.position_embedding", "embeddings.position_embedding"),
    "final_norm": ("final_layer_norm", "final_layer_norm"),
}

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


def ema_name(ldm: str) -> str | None:
    """What an LDM file calls the moving average of a U-Net weight; None for weights that have none."""
    inner = ldm.removeprefix("model.")
    return f"model_ema.{inner.replace('.', '')}" if inner.startswith("diffusion_model.") else None
