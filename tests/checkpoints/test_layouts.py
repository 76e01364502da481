"""The key tables against the real list of names, against our networks, and against diffusers' own models."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import PARTS, weights
from sdscratch.checkpoints.names import canonical, ema_name, is_extra
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig, TextEncoderConfig, UNetConfig
from support.checkpoints import SMALLER, TINY
from support.shared import shared_path

DEEP = ModelConfig(
    TextEncoderConfig(width=8, layers=3, heads=1, feed_forward=24),
    UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=8,
        multipliers=(1, 2, 2, 3, 5),
        attends=(False, True, False, True, True),
        residual_blocks=3,
        heads=2,
        context=8,
        norm_groups=4,
    ),
    AutoencoderConfig(
        channels=4, multipliers=(1, 1, 2, 3, 3), residual_blocks=1, latent_channels=3, norm_groups=2
    ),
)
FLAT = ModelConfig(
    unet=UNetConfig(channels=32, multipliers=(1,), attends=(True,), residual_blocks=1),
    autoencoder=AutoencoderConfig(channels=32, multipliers=(1,)),
)
CONFIGS = {"sd1": SD1, "tiny": TINY, "smaller": SMALLER, "deep": DEEP, "flat": FLAT}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)

Shapes = dict[str, tuple[int, ...]]


def reference_shapes(config: ModelConfig) -> Shapes:
    """Names and shapes in diffusers' and transformers' own models, by the names of a folder's files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imports, none of ours
        import diffusers
        import transformers
    records = to_folder(config, 512)
    with torch.device("meta"):
        models = {
            "unet/": diffusers.UNet2DConditionModel.from_config(records["unet/config.json"]),
            "vae/": diffusers.AutoencoderKL.from_config(records["vae/config.json"]),
            "text_encoder/": transformers.CLIPTextModel(
                transformers.CLIPTextConfig(**records["text_encoder/config.json"])
            ),
        }
    return {
        # transformers 5 leaves out text_model.; older versions, and every file of theirs, have it
        canonical(prefix + name, "diffusers"): tuple(tensor.shape)
        for prefix, model in models.items()
        for name, tensor in model.state_dict().items()
        if not name.endswith("position_ids")
    }


def test_the_published_list_is_met_name_by_name_and_shape_by_shape() -> None:
    record = json.loads(shared_path("formats", "v1-5-pruned-emaonly.keys.json").read_text())
    published = {name: tuple(shape) for name, (_, shape) in record.items() if not is_extra(name, "ldm")}
    assert {weight.ldm: weight.ldm_shape for weight in weights(SD1)} == published
    assert len(published) == 1130
    assert len(record) == 1145


def test_parts_have_the_published_numbers_of_parameters() -> None:
    counts = dict.fromkeys(PARTS, 0)
    for weight in weights(SD1):
        counts[weight.part] += torch.Size(weight.shape).numel()
    assert counts["text"] == 123_060_480
    assert counts["unet"] == 859_520_964
    assert counts["encoder"] + counts["decoder"] == 83_653_863


@EVERY_CONFIG
def test_every_name_stands_for_one_weight_in_each_layout(config: ModelConfig) -> None:
    listed = weights(config)
    for names in (
        [(weight.part, weight.name) for weight in listed],
        [weight.ldm for weight in listed],
        [weight.diffusers for weight in listed],
    ):
        assert len(set(names)) == len(listed)


@EVERY_CONFIG
def test_our_networks_have_these_names_and_shapes(config: ModelConfig) -> None:
    for part in PARTS:
        state = empty_network(part, config).state_dict()
        listed = {weight.name: weight.shape for weight in weights(config) if weight.part == part}
        assert listed == {name: tuple(tensor.shape) for name, tensor in state.items()}


@EVERY_CONFIG
def test_models_of_diffusers_and_transformers_have_these_names_and_shapes(config: ModelConfig) -> None:
    assert {weight.diffusers: weight.shape for weight in weights(config)} == reference_shapes(config)


@EVERY_CONFIG
@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_names_of_weights_are_canonical_and_no_extras(config: ModelConfig, layout: str) -> None:
    for weight in weights(config):
        name, _ = weight.stored(layout)  # type: ignore[arg-type]
        assert canonical(name, layout) == name  # type: ignore[arg-type]
        assert not is_extra(name, layout)  # type: ignore[arg-type]


def test_attention_of_the_autoencoder_alone_changes_its_shape() -> None:
    changed = {weight.ldm for weight in weights(SD1) if weight.shape != weight.ldm_shape}
    leaves = [f"{name}.weight" for name in ("q", "k", "v", "proj_out")]
    assert changed == {
        f"first_stage_model.{c}.mid.attn_1.{leaf}" for c in ("encoder", "decoder") for leaf in leaves
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cond_stage_model.transformer.embeddings.x", "cond_stage_model.transformer.text_model.embeddings.x"),
        ("cond_stage_model.transformer.encoder.x", "cond_stage_model.transformer.text_model.encoder.x"),
        ("vae.decoder.x", "first_stage_model.decoder.x"),
        ("post_quant_conv.bias", "first_stage_model.post_quant_conv.bias"),
        ("model.diffusion_model.encoder.x", "model.diffusion_model.encoder.x"),
        ("vaeencoder.x", "vaeencoder.x"),
    ],
)
def test_older_spellings_of_ldm_files(name: str, meant: str) -> None:
    assert canonical(name, "ldm") == meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("text_encoder/encoder.layers.0.x", "text_encoder/text_model.encoder.layers.0.x"),
        ("vae/encoder.mid_block.attentions.0.query.bias", "vae/encoder.mid_block.attentions.0.to_q.bias"),
        (
            "vae/decoder.mid_block.attentions.0.proj_attn.weight",
            "vae/decoder.mid_block.attentions.0.to_out.0.weight",
        ),
        ("unet/mid_block.attentions.0.query.bias", "unet/mid_block.attentions.0.query.bias"),
    ],
)
def test_older_spellings_of_diffusers_folders(name: str, meant: str) -> None:
    assert canonical(name, "diffusers") == meant


def test_averages_are_named_without_dots() -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert ema_name(name) == "model_ema.diffusion_modelinput_blocks00weight"
    assert ema_name("first_stage_model.quant_conv.bias") is None


@pytest.mark.parametrize(
    "name",
    [
        "betas",
        "model_ema.decay",
        "first_stage_model.model_ema.decay",
        "cond_stage_model.logit_scale",
        "first_stage_model.loss.discriminator.main.0.bias",
    ],
)
def test_what_trainers_leave_beside_the_weights_is_known(name: str) -> None:
    assert is_extra(name, "ldm")


@pytest.mark.parametrize(
    "name", ["betas.other", "control_model.x", "model.diffusion_model.label_emb.0.0.weight"]
)
def test_what_belongs_to_other_models_is_not(name: str) -> None:
    assert not is_extra(name, "ldm")
