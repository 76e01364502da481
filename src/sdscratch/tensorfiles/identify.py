"""What a file of weights is, by its tensors' names and shapes: a table of telling names, first match wins.

Sources: the files themselves and the programs that write them (CompVis, Stability AI, diffusers, kohya's
scripts, PEFT, LyCORIS). This module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sdscratch.show import printable

__all__ = ["LORA_KINDS", "Identity", "Kind", "identify"]


class Kind(Enum):
    """What a file can be; the value says it in words that follow "it is"."""

    SD1 = "a Stable Diffusion 1.x model"
    SD1_EMA = "a Stable Diffusion 1.x model with EMA weights"
    SD1_UNET = "a Stable Diffusion 1.x U-Net without a text encoder"
    VAE = "a VAE alone"
    TEXT_ENCODER = "a CLIP text encoder alone"
    DIFFUSERS_UNET = "the U-Net of a diffusers folder"
    DIFFUSERS_VAE = "the VAE of a diffusers folder"
    INPAINTING = "an inpainting model"
    PIX2PIX = "an instruct-pix2pix model"
    ZERO123 = "a Zero123 model"
    ALT_DIFFUSION = "an AltDiffusion model"
    SD2 = "a Stable Diffusion 2.x model"
    SDXL = "an SDXL model"
    SD3 = "a Stable Diffusion 3 model"
    FLUX = "a Flux model"
    VIDEO = "a video model"
    CONTROLNET = "a ControlNet"
    CONTROLNET_DIFFERENCE = "a ControlNet as its difference from a model"
    CONTROL_LORA = "a control-LoRA"
    CONTROLNET_SD2 = "a ControlNet for Stable Diffusion 2.x"
    CONTROLNET_SDXL = "a ControlNet for SDXL"
    CONTROL_LLLITE = "a ControlNet-LLLite"
    T2I_ADAPTER = "a T2I-Adapter"
    T2I_ADAPTER_LIGHT = "a light T2I-Adapter"
    T2I_ADAPTER_SDXL = "a T2I-Adapter for SDXL"
    STYLE_ADAPTER = "a T2I style adapter"
    IP_ADAPTER = "an IP-Adapter"
    IMAGE_ENCODER = "an image encoder of CLIP's"
    TAESD = "a TAESD autoencoder"
    UPSCALER = "an upscaler of the ESRGAN family"
    SAFETY_CHECKER = "a safety checker"
    LORA_KOHYA = "a LoRA in kohya's layout"
    LORA_DIFFUSERS = "a LoRA in diffusers' layout"
    LORA_PEFT = "a LoRA in PEFT's layout"
    LORA_NUMBERED = "a LoRA of cloneofsimo's, whose matrices have numbers for names"
    LORA_SD2 = "a LoRA for Stable Diffusion 2.x"
    LORA_SDXL = "a LoRA for SDXL"
    LORA_FLUX = "a LoRA for Flux or Stable Diffusion 3"
    OFT_PEFT = "an OFT or BOFT of PEFT's, whose rotations are of another make"
    LOHA = "a LoHa"
    LOKR = "a LoKr"
    DORA = "a DoRA"
    IA3 = "an IA3"
    OFT = "an OFT"
    BOFT = "a BOFT"
    GLORA = "a GLoRA"
    FULL = "a LoRA of full differences"
    EMBEDDING = "a textual inversion embedding"
    EMBEDDING_SD2 = "a textual inversion embedding for Stable Diffusion 2.x"
    EMBEDDING_SDXL = "a textual inversion embedding for SDXL"
    UNKNOWN = "nothing that is known here"


# What `addons.lora` reads.
LORA_KINDS = (
    *(Kind.LORA_KOHYA, Kind.LORA_DIFFUSERS, Kind.LORA_PEFT, Kind.LOHA, Kind.LOKR, Kind.DORA, Kind.IA3),
    *(Kind.OFT, Kind.BOFT, Kind.GLORA, Kind.FULL),
)


@dataclass(frozen=True)
class Identity:
    """A kind, and the tensor whose name or shape tells ("" if none does)."""

    kind: Kind
    key: str

    def __str__(self) -> str:
        """In words: `an SDXL model (conditioner.embedders.1.model.ln_final.bias)`."""
        return f"{self.kind.value} ({printable(self.key)})" if self.key else self.kind.value


@dataclass(frozen=True)
class _Sign:
    """A name that tells: `pattern` matches its beginning and, if a size is given, axis `axis` is as long."""

    kind: Kind
    pattern: str
    axis: int = 0
    size: int | None = None
    least: int = 1  # how many such names there must be
    dimensions: int | None = None


UNET_IN = r"(model\.diffusion_model\.)?input_blocks\.0\.0\.weight|conv_in\.weight"
CROSS_KEY = r"(.*\.)?attn2\.to_k\.weight"  # takes the text encoder's width
LORA_CROSS_KEY = (
    r".*attn2[._](processor\.)?to_k[._](lora[._](down|A)(\.default)?\.weight|hada_w[12]_b|diff$|b2\.weight)"
)
LORA_TEXT_QUERY = (
    r".*self_attn[._](to_)?q(_proj)?[._](lora[._](down|A|linear_layer\.down)|lora_A\.\w+)\.weight"
)
CONTROL = r"control_model\.|controlnet_cond_embedding\.|input_hint_block\."
CONTROL_KEY = r"(control_model\.)?(input|down)_blocks\..*attn2\.to_k\.(weight|down)"  # beside a hint alone
# Stable Diffusion 1.x and 2.x have one transformer block at a place, number 0.
DEEPER = r".*(attentions|(in|out)put_blocks[._]\d+|middle_block)[._]\d+[._]transformer_blocks[._][1-9]"

# From the special to the general: a ControlNet may hold a whole model, and all of SD 1.x looks alike.
SIGNS = (
    _Sign(Kind.LORA_SDXL, r"lora_te2_|text_encoder_2\..*lora"),
    _Sign(Kind.LORA_SDXL, DEEPER + r".*(lora|hada|lokr|oft_blocks|\.diff)"),
    _Sign(Kind.LORA_SDXL, LORA_CROSS_KEY, axis=1, size=2048),
    _Sign(Kind.LORA_SD2, LORA_CROSS_KEY, axis=1, size=1024),
    _Sign(Kind.LORA_SD2, LORA_TEXT_QUERY, axis=1, size=1024),
    _Sign(Kind.LORA_SDXL, LORA_TEXT_QUERY, axis=1, size=1280),
    _Sign(Kind.LORA_NUMBERED, r"(unet|text_encoder):\d+:(up|down)$"),
    _Sign(Kind.LORA_FLUX, r"(lora_unet_|lora_transformer_|transformer\.)(double|single|joint|transformer)_"),
    _Sign(Kind.LOHA, r".*\.hada_(w[12]_[ab]|t[12])"),
    _Sign(Kind.LOKR, r".*\.lokr_(w[12]|t2)"),
    _Sign(Kind.DORA, r".*(\.dora_scale|\.lora_magnitude_vector)"),
    _Sign(Kind.IA3, r".*(\.on_input|\.ia3_l(\.\w+)?)$"),
    _Sign(Kind.BOFT, r".*\.oft_blocks$", dimensions=4),
    _Sign(Kind.OFT, r".*\.oft_blocks$"),
    _Sign(Kind.OFT_PEFT, r".*\.(oft_R|boft_R|boft_s)(\.\w+)*$"),
    _Sign(Kind.GLORA, r".*\.a1\.weight$"),
    _Sign(Kind.LORA_KOHYA, r"lora_(unet|te1?)_.*\.lora_(down|up)\.weight"),
    _Sign(Kind.LORA_PEFT, r".*\.lora_[AB](\.\w+)?\.weight"),
    _Sign(Kind.LORA_DIFFUSERS, r".*\.(to_(q|k|v|out)_lora|lora(_linear_layer)?)\.(down|up)\.weight"),
    _Sign(Kind.FULL, r".*\.(diff|diff_b|w_norm|b_norm|set_weight)$"),
    _Sign(Kind.EMBEDDING_SDXL, r"clip_[gl]$"),
    _Sign(Kind.EMBEDDING_SD2, r"(emb_params|string_to_param\..*)$", axis=-1, size=1024),
    _Sign(Kind.EMBEDDING, r"emb_params$|string_to_param\."),
    _Sign(Kind.CONTROL_LLLITE, r"lllite_"),
    _Sign(Kind.CONTROLNET_SDXL, CONTROL_KEY, axis=1, size=2048),
    _Sign(Kind.CONTROLNET_SD2, CONTROL_KEY, axis=1, size=1024),
    _Sign(Kind.CONTROL_LORA, r"(control_model\.)?lora_controlnet$"),
    _Sign(Kind.CONTROLNET_DIFFERENCE, r"difference$"),
    _Sign(Kind.CONTROLNET, CONTROL),
    _Sign(Kind.STYLE_ADAPTER, r"style_embedding$|transformer_layes\."),
    _Sign(Kind.T2I_ADAPTER_SDXL, r"(adapter\.)?conv_in\.weight", axis=1, size=256),
    _Sign(Kind.T2I_ADAPTER_SDXL, r"(adapter\.)?conv_in\.weight", axis=1, size=768),
    _Sign(Kind.T2I_ADAPTER_LIGHT, r"(adapter\.)?body\.0\.out_conv\.weight"),
    _Sign(Kind.T2I_ADAPTER, r"(adapter\.)?body\.0\.(resnets\.0\.)?block1\.weight"),
    _Sign(Kind.IP_ADAPTER, r"ip_adapter\.|image_proj\."),
    _Sign(Kind.SAFETY_CHECKER, r"(.*\.)?(concept_embeds|special_care_embeds)$"),
    _Sign(Kind.IMAGE_ENCODER, r"visual_projection\.|(vision_model\.)?embeddings\.patch_embedding\."),
    _Sign(Kind.VIDEO, r".*\.(time_stack|motion_modules|temporal_transformer_blocks)\."),
    _Sign(Kind.TAESD, r"((taesd_)?(encoder|decoder)\.(layers\.)?)?\d+\.conv\.\d+\.weight"),
    _Sign(Kind.UPSCALER, r"(params(_ema)?\.)?(body\.0\.rdb1|RRDB_trunk\.0|model\.1\.sub\.0\.RDB1)\."),
    _Sign(Kind.UPSCALER, r"(params(_ema)?\.)?body\.1\.weight$", dimensions=1),
    _Sign(Kind.SDXL, r"conditioner\.embedders\.|(model\.diffusion_model\.)?label_emb\.|add_embedding\."),
    _Sign(Kind.FLUX, r"(model\.diffusion_model\.)?double_blocks\.|single_transformer_blocks\."),
    _Sign(Kind.SD3, r"(model\.diffusion_model\.)?joint_blocks\.|transformer_blocks\.\d+\.attn\.add_k_proj\."),
    _Sign(Kind.ALT_DIFFUSION, r"cond_stage_model\.roberta\."),
    _Sign(Kind.SD2, r"cond_stage_model\.model\."),
    _Sign(Kind.SD2, CROSS_KEY, axis=1, size=1024),
    _Sign(Kind.SDXL, CROSS_KEY, axis=1, size=2048),
    _Sign(Kind.ZERO123, r"cc_projection\."),
    _Sign(Kind.INPAINTING, UNET_IN, axis=1, size=9),
    _Sign(Kind.PIX2PIX, UNET_IN, axis=1, size=8),
    _Sign(Kind.SD1_EMA, r"model_ema\.diffusion_model", least=101),
    _Sign(Kind.SD1, r"cond_stage_model\."),
    _Sign(Kind.SD1_UNET, r"(model\.diffusion_model\.)?input_blocks\."),
    _Sign(Kind.DIFFUSERS_UNET, r"down_blocks\.\d+\.resnets\."),
    _Sign(Kind.DIFFUSERS_VAE, r"(encoder|decoder)\.(down|up)_blocks\."),
    _Sign(Kind.VAE, r"(first_stage_model\.|vae\.)?(encoder\.down|decoder\.up)\.\d"),
    _Sign(
        Kind.TEXT_ENCODER,
        r"(text_model\.)?encoder\.layers\.\d+\.self_attn\.|(text_model\.)?embeddings\.token_",
    ),
)


def identify(shapes: Mapping[str, tuple[int, ...]]) -> Identity:
    """What the file with these tensors is.

    A model that carries its own configuration needs no guessing: ask its metadata first, for its sizes may be
    any (a latent of 8 channels looks like instruct-pix2pix here).
    """
    control = any(re.match(CONTROL, name) for name in shapes)
    for sign in SIGNS:
        if sign.pattern == CONTROL_KEY and not control:
            continue
        telling = [name for name, shape in shapes.items() if _tells(sign, name, shape)]
        if len(telling) >= sign.least:
            return Identity(sign.kind, telling[0])
    return _token_embedding(shapes)


def _tells(sign: _Sign, name: str, shape: tuple[int, ...]) -> bool:
    if not re.match(sign.pattern, name):
        return False
    if sign.dimensions not in (None, len(shape)):
        return False
    return sign.size is None or (len(shape) > max(sign.axis, 0) and shape[sign.axis] == sign.size)


EMBEDDING_WIDTHS = {768: Kind.EMBEDDING, 1024: Kind.EMBEDDING_SD2, 1280: Kind.EMBEDDING_SDXL}


def _token_embedding(shapes: Mapping[str, tuple[int, ...]]) -> Identity:
    """diffusers keeps an embedding as `{token: vectors}`, the token being any text."""
    if len(shapes) == 1:
        [(name, shape)] = shapes.items()
        if len(shape) in (1, 2) and shape[-1] in EMBEDDING_WIDTHS:
            return Identity(EMBEDDING_WIDTHS[shape[-1]], name)
    return Identity(Kind.UNKNOWN, "")
