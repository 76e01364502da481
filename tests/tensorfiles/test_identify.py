"""Every kind of file that people take for a Stable Diffusion 1.x checkpoint is told by names and shapes."""

from __future__ import annotations

import json

import pytest

from sdscratch.tensorfiles.identify import SIGNS, Identity, Kind, identify
from support.shared import shared_path

Shapes = dict[str, tuple[int, ...]]

UNET = "model.diffusion_model."
IN, KEY = UNET + "input_blocks.0.0.weight", UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
TEXT = {"cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)}
VAE = {"first_stage_model.encoder.down.0.block.0.norm1.bias": (128,)}
SD1: Shapes = {IN: (320, 4, 3, 3), KEY: (320, 768), **TEXT, **VAE}
EMA: Shapes = {f"model_ema.diffusion_modelinput_blocks{i}weight": (1,) for i in range(101)}


def kohya(width: int) -> Shapes:
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{module}.lora_down.weight": (4, width),
        f"{module}.lora_up.weight": (320, 4),
        f"{module}.alpha": (),
    }


CASES: dict[str, tuple[Kind, Shapes]] = {
    "SD 1.x": (Kind.SD1, SD1),
    "SD 1.x with EMA": (Kind.SD1_EMA, EMA | SD1),
    "SD 1.x with two EMA buffers": (Kind.SD1, {"model_ema.decay": (), "model_ema.num_updates": ()} | SD1),
    "SD 1.x, old CLIP layout": (
        Kind.SD1,
        SD1 | {"cond_stage_model.transformer.encoder.layers.0.mlp.fc1.bias": (3072,)},
    ),
    "the built-in model's own sizes": (Kind.SD1, SD1 | {IN: (64, 4, 3, 3), KEY: (64, 256)}),
    "U-Net and VAE": (Kind.SD1_UNET, {IN: (320, 4, 3, 3), KEY: (320, 768), **VAE}),
    "LDM's VAE": (Kind.VAE, {"encoder.down.0.block.0.norm1.bias": (128,), "loss.logvar": ()}),
    "LDM's VAE with a prefix": (Kind.VAE, {"vae.decoder.up.0.block.0.norm1.bias": (128,)}),
    "diffusers' VAE": (Kind.DIFFUSERS_VAE, {"encoder.down_blocks.0.resnets.0.norm1.bias": (128,)}),
    "diffusers' U-Net": (
        Kind.DIFFUSERS_UNET,
        {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.norm1.bias": (320,)},
    ),
    "text encoder": (Kind.TEXT_ENCODER, {"text_model.encoder.layers.0.self_attn.k_proj.bias": (768,)}),
    "text encoder, transformers 5": (Kind.TEXT_ENCODER, {"encoder.layers.0.self_attn.k_proj.bias": (768,)}),
    "T2I-Adapter for SDXL, sketch": (Kind.T2I_ADAPTER_SDXL, {"adapter.conv_in.weight": (320, 256, 3, 3)}),
    "ESRGAN": (Kind.UPSCALER, {"model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}),
    "Real-ESRGAN's compact one": (Kind.UPSCALER, {"params.body.1.weight": (64,)}),
    "safety checker": (Kind.SAFETY_CHECKER, {"concept_embeds": (17, 768)}),
    "inpainting": (Kind.INPAINTING, SD1 | {IN: (320, 9, 3, 3)}),
    "inpainting, diffusers": (
        Kind.INPAINTING,
        {"conv_in.weight": (320, 9, 3, 3), "down_blocks.0.resnets.0.norm1.bias": (320,)},
    ),
    "instruct-pix2pix": (Kind.PIX2PIX, SD1 | {IN: (320, 8, 3, 3)}),
    "Zero123": (Kind.ZERO123, SD1 | {IN: (320, 8, 3, 3), "cc_projection.weight": (768, 772)}),
    "AltDiffusion": (Kind.ALT_DIFFUSION, SD1 | {"cond_stage_model.roberta.pooler.dense.bias": (1024,)}),
    "SD 2": (Kind.SD2, SD1 | {KEY: (320, 1024), "cond_stage_model.model.ln_final.bias": (1024,)}),
    "SD 2's U-Net": (Kind.SD2, {IN: (320, 4, 3, 3), KEY: (320, 1024)}),
    "SDXL": (Kind.SDXL, {IN: (320, 4, 3, 3), "conditioner.embedders.1.model.ln_final.bias": (1280,)}),
    "SDXL's U-Net": (Kind.SDXL, {IN: (320, 4, 3, 3), KEY: (640, 2048)}),
    "SDXL's U-Net, diffusers": (Kind.SDXL, {"add_embedding.linear_1.weight": (1280, 2816)}),
    "SD 3": (Kind.SD3, {UNET + "joint_blocks.0.context_block.attn.qkv.weight": (1, 1)}),
    "Flux": (Kind.FLUX, {"double_blocks.0.img_attn.qkv.weight": (1, 1)}),
    "Flux, diffusers": (Kind.FLUX, {"single_transformer_blocks.0.attn.to_q.weight": (1, 1)}),
    "AnimateDiff": (Kind.VIDEO, {"down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": (320,)}),
    "ControlNet": (Kind.CONTROLNET, SD1 | {"control_model.input_hint_block.0.bias": (16,)}),
    "ControlNet, bare": (Kind.CONTROLNET, {"time_embed.0.bias": (1280,), "input_hint_block.0.bias": (16,)}),
    "ControlNet, diffusers": (
        Kind.CONTROLNET,
        {"conv_in.weight": (320, 4, 3, 3), "controlnet_cond_embedding.conv_in.bias": (16,)},
    ),
    "ControlNet for SD 2": (
        Kind.CONTROLNET_SD2,
        {"control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
    ),
    "ControlNet for SDXL": (
        Kind.CONTROLNET_SDXL,
        {
            "controlnet_cond_embedding.conv_in.bias": (16,),
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        },
    ),
    "ControlNet, difference": (
        Kind.CONTROLNET_DIFFERENCE,
        {"control_model.input_hint_block.0.bias": (16,), "difference": ()},
    ),
    "control-LoRA": (Kind.CONTROL_LORA, {"lora_controlnet": (), "input_hint_block.0.bias": (16,)}),
    "control-LoRA for SDXL": (
        Kind.CONTROLNET_SDXL,
        {
            "lora_controlnet": (),
            "input_hint_block.0.bias": (16,),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": (128, 2048),
        },
    ),
    "ControlNet-LLLite": (Kind.CONTROL_LLLITE, {"lllite_unet_input_blocks_4_1.down.0.weight": (32, 64)}),
    "T2I-Adapter": (Kind.T2I_ADAPTER, {"body.0.block1.weight": (320, 320, 3, 3)}),
    "T2I-Adapter, diffusers": (
        Kind.T2I_ADAPTER,
        {"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
    ),
    "T2I-Adapter, light": (Kind.T2I_ADAPTER_LIGHT, {"body.0.out_conv.weight": (320, 80, 1, 1)}),
    "T2I-Adapter for SDXL": (Kind.T2I_ADAPTER_SDXL, {"adapter.conv_in.weight": (320, 768, 3, 3)}),
    "style adapter": (Kind.STYLE_ADAPTER, {"style_embedding": (1, 8, 1024)}),
    "IP-Adapter": (Kind.IP_ADAPTER, {"image_proj.proj.weight": (3072, 1024)}),
    "image encoder": (Kind.IMAGE_ENCODER, {"visual_projection.weight": (1024, 1280)}),
    "TAESD": (Kind.TAESD, {"0.weight": (64, 3, 3, 3), "1.conv.0.weight": (64, 64, 3, 3)}),
    "TAESD, diffusers": (Kind.TAESD, {"decoder.layers.3.conv.0.weight": (64, 64, 3, 3)}),
    "LoRA, kohya": (Kind.LORA_KOHYA, kohya(768)),
    "LoRA, kohya, text encoder alone": (
        Kind.LORA_KOHYA,
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)},
    ),
    "LoRA, kohya, for SD 2": (Kind.LORA_SD2, kohya(1024)),
    "LoRA, kohya, for SDXL": (Kind.LORA_SDXL, kohya(2048)),
    "LoRA, kohya, for SDXL, by its text encoder": (
        Kind.LORA_SDXL,
        {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)},
    ),
    "LoRA, kohya, the text encoder's by the name that SDXL's first one has": (
        Kind.LORA_KOHYA,
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)},
    ),
    "LoRA, kohya, for SD 2, text encoder alone": (
        Kind.LORA_SD2,
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1024)},
    ),
    "LoRA, PEFT, for SDXL's second text encoder alone": (
        Kind.LORA_SDXL,
        {"base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": (4, 1280)},
    ),
    "LoRA, cloneofsimo's": (Kind.LORA_NUMBERED, {"unet:0:up": (320, 4), "unet:0:down": (4, 320)}),
    "LoRA, kohya with LDM's names": (
        Kind.LORA_KOHYA,
        {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight": (4, 640)},
    ),
    "LoRA, kohya with LDM's names, for SDXL": (
        Kind.LORA_SDXL,
        {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_down.weight": (4, 640)},
    ),
    "LoRA, PEFT, for SDXL, by its depth": (
        Kind.LORA_SDXL,
        {"unet.mid_block.attentions.0.transformer_blocks.9.attn1.to_q.lora_A.weight": (4, 1280)},
    ),
    "LoRA, diffusers, text encoder alone": (
        Kind.LORA_DIFFUSERS,
        {"text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight": (4, 768)},
    ),
    "IA3": (Kind.IA3, {"lora_unet_mid_block_attentions_0_proj_in.on_input": (1,)}),
    "LoRA for Flux": (Kind.LORA_FLUX, {"lora_unet_double_blocks_0_img_attn_proj.alpha": ()}),
    "LoRA, diffusers": (
        Kind.LORA_DIFFUSERS,
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight": (4, 1280)},
    ),
    "LoRA, PEFT": (
        Kind.LORA_PEFT,
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
    ),
    "LoRA, PEFT, for SDXL": (
        Kind.LORA_SDXL,
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight": (4, 2048)},
    ),
    "DoRA": (Kind.DORA, kohya(768) | {"lora_unet_mid_block_resnets_0_conv1.dora_scale": (1, 320)}),
    "LoHa": (Kind.LOHA, {"lora_unet_mid_block_resnets_0_conv1.hada_w1_a": (320, 4)}),
    "LoKr": (Kind.LOKR, {"lora_unet_mid_block_resnets_0_conv1.lokr_w1": (4, 4)}),
    "embedding, web UI": (Kind.EMBEDDING, {"string_to_token.*": (), "string_to_param.*": (2, 768)}),
    "embedding, safetensors": (Kind.EMBEDDING, {"emb_params": (2, 768)}),
    "embedding, diffusers": (Kind.EMBEDDING, {"<cat-toy>": (768,)}),
    "embedding for SD 2": (Kind.EMBEDDING_SD2, {"emb_params": (2, 1024)}),
    "LoHa for SDXL": (
        Kind.LORA_SDXL,
        {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.hada_w1_a": (640, 4)},
    ),
    "OFT": (Kind.OFT, {"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": (4, 320, 320)}),
    "BOFT": (Kind.BOFT, {"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": (2, 160, 8, 8)}),
    "OFT of PEFT": (Kind.OFT_PEFT, {"base_model.model.mid_block.attentions.0.proj_in.oft_R.weight": (4, 9)}),
    "GLoRA": (Kind.GLORA, {"lora_unet_mid_block_attentions_0_proj_in.a1.weight": (320, 4)}),
    "full": (Kind.FULL, {"lora_unet_mid_block_attentions_0_proj_in.diff": (320, 320)}),
    "norms": (Kind.FULL, {"lora_unet_mid_block_attentions_0_norm.w_norm": (320,)}),
    "LoRA, numbered": (Kind.LORA_NUMBERED, {"unet:0:up": (320, 4), "unet:0:down": (4, 320)}),
    "LoRA, kohya, the first text encoder's name": (
        Kind.LORA_KOHYA,
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)},
    ),
    "LoRA, text encoder alone, for SD 2": (
        Kind.LORA_SD2,
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1024)},
    ),
    "LoRA, text encoder alone, for SDXL": (
        Kind.LORA_SDXL,
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.default.weight": (4, 1280)},
    ),
    "embedding for SDXL": (Kind.EMBEDDING_SDXL, {"clip_l": (2, 768), "clip_g": (2, 1280)}),
    "nothing": (Kind.UNKNOWN, {}),
    "something else": (Kind.UNKNOWN, {"fc1.weight": (10, 784), "fc2.weight": (10, 10)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_told_by_names_and_shapes(case: str) -> None:
    kind, shapes = CASES[case]
    identity = identify(shapes)
    assert identity.kind == kind
    assert identity.key in {"", *shapes}


def test_every_kind_is_tested() -> None:
    assert {kind for kind, _ in CASES.values()} == set(Kind)


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: f"{sign.kind.name}-{sign.pattern[:20]}")
def test_every_sign_decides_some_case(sign: object, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [identify(shapes) for _, shapes in CASES.values()]
    rest = tuple(other for other in SIGNS if other is not sign)
    monkeypatch.setattr("sdscratch.tensorfiles.identify.SIGNS", rest)
    assert [identify(shapes) for _, shapes in CASES.values()] != told


def test_the_published_list_of_names() -> None:
    listed = json.loads(shared_path("formats", "v1-5-pruned-emaonly.keys.json").read_text())
    shapes: Shapes = {name: tuple(shape) for name, (_, shape) in listed.items()}
    assert identify(shapes).kind == Kind.SD1
    ema = {
        f"model_ema.{name[6:].replace('.', '')}": shape
        for name, shape in shapes.items()
        if name.startswith(UNET)
    }
    assert len(ema) == 686
    assert identify(shapes | ema).kind == Kind.SD1_EMA


def test_the_words_name_the_key_that_tells() -> None:
    key = "conditioner.embedders.1.model.ln_final.bias"
    assert str(identify({key: (1280,)})) == f"an SDXL model ({key})"
    assert str(identify({})) == "nothing that is known here"
    assert str(Identity(Kind.SDXL, "\x1b[2J")) == "an SDXL model (\\x1b[2J)"
