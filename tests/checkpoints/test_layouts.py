"""The key tables against the real list of names, against our networks, and against diffusers' own models."""

from __future__ import annotations

import doctest
import importlib
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import PARTS, by_stored_name, joined, parts_in, weights
from sdscratch.checkpoints.layouts.rows import inverted
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.names import Layout, canonical, ema_name, is_extra
from sdscratch.checkpoints.writer import Model, write_folder, write_single
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig, TextEncoderConfig, UNetConfig
from sdscratch.options import SD1_DEFAULTS
from sdscratch.tensorfiles.reader import open_tensors
from support.checkpoints import SMALLER, TINY, our_tensors
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


# --- Tables -----------------------------------------------------------------------------------------------

OPENCLIP = TextEncoderConfig(
    vocabulary=40, length=9, width=8, layers=2, heads=2, feed_forward=12, family="openclip", projection=6
)
XL = replace(
    DEEP,
    unet=replace(DEEP.unet, projection="linear", head_width=8, heads=1, depth=(1, 2, 3, 1, 2), pooled=6),
    more_texts=(OPENCLIP,),
)
OTHERS = {"2.x": replace(DEEP, text=OPENCLIP), "XL": XL}


@pytest.mark.parametrize("network", ["unet", "text", "openclip", "autoencoder"])
def test_the_examples_at_the_top_of_each_layout_hold(network: str) -> None:
    module = importlib.import_module(f"sdscratch.checkpoints.layouts.{network}")
    assert (module.__doc__ or "").count(">>> show(") == 3
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 3) == (0, True)


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_networks_of_other_kinds_have_their_names_and_shapes(config: ModelConfig) -> None:
    for part in parts_in(config):
        state = empty_network(part, config).state_dict()
        listed = {weight.name: weight.shape for weight in weights(config) if weight.part == part}
        assert listed == {name: tuple(tensor.shape) for name, tensor in state.items()}
    for names in ([w.diffusers for w in weights(config)], [(w.part, w.name) for w in weights(config)]):
        assert len(set(names)) == len(weights(config))


def test_openclips_names_are_those_of_its_own_module() -> None:
    width, inner, layers = OPENCLIP.width, OPENCLIP.feed_forward, OPENCLIP.layers
    layer = nn.ModuleDict(
        {
            "ln_1": nn.LayerNorm(width),
            "attn": nn.MultiheadAttention(width, OPENCLIP.heads),
            "ln_2": nn.LayerNorm(width),
            "mlp": nn.ModuleDict({"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)}),
        }
    )
    expected = {
        "token_embedding.weight": (OPENCLIP.vocabulary, width),
        "positional_embedding": (OPENCLIP.length, width),
        "text_projection": (width, OPENCLIP.projection),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    } | {
        f"transformer.resblocks.{n}.{name}": tuple(tensor.shape)
        for n in range(layers)
        for name, tensor in layer.state_dict().items()
    }
    prefix = "cond_stage_model.model."
    config = OTHERS["2.x"]
    found = by_stored_name(config, "ldm")
    assert {
        name.removeprefix(prefix): sharing[0].ldm_shape
        for name, sharing in found.items()
        if sharing[0].part == "text"
    } == expected


def test_a_fused_tensor_computes_what_its_parts_compute() -> None:
    """Against PyTorch's own multi-head attention, whose tensor it is."""
    torch.manual_seed(0)
    width = OPENCLIP.width
    theirs = nn.MultiheadAttention(width, OPENCLIP.heads, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    stored = {"attn.in_proj_weight": theirs.in_proj_weight, "attn.in_proj_bias": theirs.in_proj_bias}
    state = {
        weight.name: weight.taken(stored[end].detach(), "ldm")
        for weight in weights(OTHERS["2.x"])
        for end in stored
        if weight.ldm.endswith(f"resblocks.0.{end}")
    }
    assert len(state) == 6
    x = torch.randn(2, 5, width)
    q, k, v = (
        F.linear(x, state[f"layers.0.attention.{name}.weight"], state[f"layers.0.attention.{name}.bias"])
        .unflatten(-1, (OPENCLIP.heads, -1))
        .transpose(1, 2)
        for name in ("query", "key", "value")
    )
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(theirs.out_proj(mixed), theirs(x, x, x)[0])


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_what_is_joined_is_taken_apart_again(config: ModelConfig, layout: Layout) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, sharing in by_stored_name(config, layout).items():
        tensors = {weight: torch.randn(weight.shape, generator=generator) for weight in sharing}
        whole = joined(tensors, layout)
        assert tuple(whole.shape) == sharing[0].stored(layout)[1], name
        assert all(weight.fits(tuple(whole.shape), layout) for weight in sharing)
        assert all(torch.equal(weight.taken(whole, layout), tensor) for weight, tensor in tensors.items())


def test_a_model_whose_tensors_are_several_weights_is_written_and_read(tmp_path: Path) -> None:
    config = replace(TINY, text=replace(OPENCLIP, width=32, vocabulary=TINY.text.vocabulary, length=77))
    parts = our_tensors(config)
    for layout, written in {"ldm": tmp_path / "it.safetensors", "diffusers": tmp_path / "folder"}.items():
        save(written, layout, config, parts)  # type: ignore[arg-type]
    model = open_model(tmp_path / "it.safetensors")
    assert model.config == config
    names = open_tensors(tmp_path / "it.safetensors").tensors
    assert "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight" in names
    assert not any("q_proj" in name for name in names)
    for weight in weights(config):
        assert torch.equal(model.read(weight), parts[weight.part][weight.name]), weight.name
    folder = open_tensors(tmp_path / "folder" / "text_encoder" / "model.safetensors")
    assert {f"text_encoder/{name}" for name in folder.tensors} == {
        weight.diffusers for weight in weights(config) if weight.part == "text"
    }


def save(path: Path, layout: Layout, config: ModelConfig, parts: dict[str, dict[str, torch.Tensor]]) -> None:
    model = Model(
        config,
        dict.fromkeys(weights(config), "F32"),
        lambda weight: parts[weight.part][weight.name],
        None,
        SD1_DEFAULTS,
        {},
        {},
    )
    if layout == "ldm":
        with path.open("wb") as file:
            write_single(file, model, lambda _: None)
        assert sum(entry.bytes for entry in model.entries("ldm")) == model.bytes
    else:
        path.mkdir()
        write_folder(path, model, lambda _: None)


def test_tables_that_give_two_weights_one_place_are_refused() -> None:
    one, two, *_ = (weight for weight in weights(OTHERS["2.x"]) if weight.piece[1] == 3)
    with pytest.raises(ValueError, match="is not made of"):
        inverted([one, two], "ldm")  # the third part is missing
    plain, *_ = weights(SD1)
    with pytest.raises(ValueError, match="is not made of"):
        inverted([plain, replace(plain, name="other")], "ldm")
