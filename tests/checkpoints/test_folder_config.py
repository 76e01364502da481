"""A diffusers folder's JSON files: there and back; every value that would give a wrong picture is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sdscratch.checkpoints.folder_config import from_folder, to_folder
from sdscratch.errors import CheckpointError
from sdscratch.models.config import SD1, ModelConfig, ScheduleConfig
from support.checkpoints import SMALLER, TINY

FILES = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")

VELOCITY = ModelConfig(
    schedule=ScheduleConfig(timesteps=500, beta_start=0.001, beta_end=0.02, prediction="v")
)


def read(records: dict[str, dict[str, Any]]) -> ModelConfig:
    unet, vae, text, scheduler = (records[name] for name in FILES)
    return from_folder(unet, vae, text, scheduler)


@pytest.mark.parametrize("config", [SD1, TINY, SMALLER, VELOCITY], ids=["sd1", "tiny", "smaller", "v"])
def test_there_and_back(config: ModelConfig) -> None:
    assert read(to_folder(config, 512)) == config


def test_stable_diffusion_1_5s_published_files_are_sd1() -> None:
    unet = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    }
    vae = {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    text = {
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "torch_dtype": "float32",
        "vocab_size": 49408,
    }
    scheduler = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
    }
    assert from_folder(unet, vae, text, scheduler) == SD1
    assert from_folder(unet, vae, text, None) == SD1


REFUSED = [
    ("unet", "act_fn", "gelu"),
    ("unet", "use_linear_projection", True),
    ("unet", "transformer_layers_per_block", [1, 2, 10, 10]),
    ("unet", "attention_head_dim", [5, 10, 20, 20]),
    ("unet", "attention_head_dim", None),
    ("unet", "down_block_types", ["AttnDownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"]),
    ("unet", "down_block_types", ["CrossAttnDownBlock2D"]),
    ("unet", "up_block_types", [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"]),
    ("unet", "block_out_channels", [320, 600, 1280, 1280]),
    ("unet", "block_out_channels", []),
    ("unet", "block_out_channels", [0, 0]),
    ("unet", "block_out_channels", "320"),
    ("unet", "in_channels", 9),
    ("unet", "norm_eps", 1e-6),
    ("unet", "freq_shift", 1),
    ("unet", "layers_per_block", [2, 2, 2, 1]),
    ("unet", "layers_per_block", True),
    ("unet", "some_future_setting", "on"),
    ("vae", "use_quant_conv", False),
    ("vae", "shift_factor", 0.1159),
    ("vae", "down_block_types", ["DownEncoderBlock2D"] * 3),
    ("vae", "scaling_factor", "0.18215"),
    ("vae", "mid_block_add_attention", False),
    ("text_encoder", "hidden_act", "relu"),
    ("text_encoder", "model_type", "xlm-roberta"),
    ("text_encoder", "num_hidden_layers", 12.0),
    ("text_encoder", "layer_norm_eps", 1e-6),
    ("scheduler", "beta_schedule", "squaredcos_cap_v2"),
    ("scheduler", "prediction_type", "sample"),
    ("scheduler", "rescale_betas_zero_snr", 1),
    ("scheduler", "trained_betas", [0.1, 0.2]),
]


@pytest.mark.parametrize(("part", "key", "value"), REFUSED)
def test_what_our_networks_do_not_compute_is_refused_by_file_and_name(
    part: str, key: str, value: object
) -> None:
    records = to_folder(SD1, 512)
    name = "scheduler/scheduler_config.json" if part == "scheduler" else f"{part}/config.json"
    records[name][key] = value
    with pytest.raises(CheckpointError, match=f"{name} says {key}"):
        read(records)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "act_fn", "swish"),
        ("unet", "upcast_attention", True),
        ("unet", "sample_size", 96),
        ("unet", "only_cross_attention", [False] * 4),
        ("unet", "transformer_layers_per_block", [1, 1, 1, 1]),
        ("unet", "attention_head_dim", [8, 8, 8, 8]),
        ("unet", "some_future_setting", False),
        ("vae", "force_upcast", False),
        ("vae", "shift_factor", None),
        ("text_encoder", "eos_token_id", 2),
    ],
)
def test_what_changes_no_picture_is_accepted(part: str, key: str, value: object) -> None:
    records = to_folder(SD1, 512)
    records[f"{part}/config.json"][key] = value
    assert read(records) == SD1


def test_a_scheduler_that_does_not_name_its_betas_has_diffusers_linear_ones_and_is_refused() -> None:
    records = to_folder(SD1, 512)
    del records["scheduler/scheduler_config.json"]["beta_schedule"]
    with pytest.raises(CheckpointError, match="beta_schedule"):
        read(records)
