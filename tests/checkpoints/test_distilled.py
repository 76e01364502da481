"""Distilled U-Nets as files: shapes read off the tensors, in both numberings, and off a folder's JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdscratch import load
from sdscratch.checkpoints import model as model_module
from sdscratch.checkpoints.folder_config import from_folder, to_folder
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.layouts.distilled import without_gaps, without_some
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError
from sdscratch.models.config import SD1, ModelConfig, UNetConfig
from support.checkpoints import TINY, our_tensors, tiny_tokenizer, write_diffusers, write_ldm
from support.cli import sdscratch


def less(plain: UNetConfig) -> dict[str, UNetConfig]:
    base = replace(plain, residual_blocks=1)
    small = replace(base, middle=False)
    tiny = replace(small, multipliers=(1, 2, 4), attends=(True, True, True))
    sdxs = replace(tiny, attends=(False, True, True))
    return {"base": base, "small": small, "tiny": tiny, "sdxs": sdxs, "lcm": replace(plain, guidance=256)}


NAMES = [*less(SD1.unet)]


def scripted(diffusers: str) -> str:
    """An LDM name by the rule of diffusers' script: three groups a level, of two blocks or one."""
    inner = diffusers.removeprefix("unet/")
    if match := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", inner):
        level, kind, index, rest = match.groups()
        return f"input_blocks.{3 * int(level) + int(index) + 1}.{int(kind == 'attentions')}.{rest}"
    if match := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", inner):
        return f"input_blocks.{3 * int(match[1]) + 3}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", inner):
        level, kind, index, rest = match.groups()
        return f"output_blocks.{3 * int(level) + int(index)}.{int(kind == 'attentions')}.{rest}"
    if match := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.(.*)", inner):
        return f"output_blocks.{3 * int(match[1]) + 2}.{2 if match[1] != '0' else 1}.{match[2]}"
    return ""


def ldm_with_gaps(config: ModelConfig) -> dict[str, Tensor]:
    """A single file's tensors, its groups numbered by the script."""
    parts = our_tensors(config)
    named = {}
    for weight in weights(config):
        group = scripted(weight.diffusers) if weight.part == "unet" else ""
        name = weight.ldm
        if group:  # the script's number, and LDM's own word for what is in the block
            inner = weight.ldm.removeprefix("model.diffusion_model.").split(".", 3)[3]
            name = "model.diffusion_model." + ".".join([*group.split(".")[:3], inner])
        named[name] = parts[weight.part][weight.name].reshape(weight.ldm_shape)
    return named


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_is_read_off_the_tensors_and_gaps_are_closed(name: str) -> None:
    unet = less(SD1.unet)[name]
    plain = {weight.ldm: weight.ldm_shape for weight in weights(replace(SD1, unet=unet))}
    assert without_some(SD1.unet, plain) == unet
    assert without_gaps(plain) == dict(zip(plain, plain, strict=True))


def test_a_whole_or_a_damaged_u_net_is_taken_for_no_smaller_one() -> None:
    shapes = {weight.ldm: weight.ldm_shape for weight in weights(SD1)}
    assert without_some(SD1.unet, shapes) == SD1.unet
    for lost in ("input_blocks.4.", "middle_block."):
        damaged = {name: shape for name, shape in shapes.items() if lost not in name}
        assert without_some(SD1.unet, damaged) == SD1.unet


@pytest.mark.parametrize("name", NAMES)
def test_single_files_in_both_numberings_and_folders_are_one_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, unet=less(TINY.unet)[name])
    monkeypatch.setattr(model_module, "_config", plain_shape(model_module._config))
    tensors = ldm_with_gaps(config)
    if name != "lcm":
        assert set(tensors) != {weight.ldm for weight in weights(config)}
    dense = {weight.ldm: tensors[key] for weight, key in zip(weights(config), tensors, strict=True)}
    gaps = open_model(write_ldm(tmp_path / "gaps.safetensors", tensors))
    own = open_model(write_ldm(tmp_path / "own.safetensors", dense))
    folder = open_model(write_diffusers(tmp_path / "folder", config, tokenizer=tiny_tokenizer()))
    assert gaps.config == own.config == folder.config == config
    for weight in weights(config):
        assert torch.equal(gaps.read(weight), own.read(weight))
        assert torch.equal(gaps.read(weight), folder.read(weight))
    assert gaps.defaults.sampler == {"lcm": "lcm", "sdxs": "euler"}.get(name, "ddpm")


def plain_shape(real):  # type: ignore[no-untyped-def]
    """What a file that says nothing is taken for: here the tiny model, not Stable Diffusion 1.x."""
    return lambda source: TINY if source.layout == "ldm" else real(source)


@pytest.mark.parametrize("name", NAMES)
def test_a_folders_json_there_and_back(name: str) -> None:
    config = replace(SD1, unet=less(SD1.unet)[name])
    records = to_folder(config, 512)
    keys = (
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    )
    unet, vae, text, scheduler = (records[key] for key in keys)
    assert from_folder(unet, vae, text, scheduler) == config
    assert ModelConfig.from_json(config.to_json()) == config


def test_of_a_smaller_one_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "_config", plain_shape(model_module._config))
    tensors = ldm_with_gaps(replace(TINY, unet=less(TINY.unet)["base"]))
    del tensors["model.diffusion_model.input_blocks.4.0.in_layers.2.weight"]
    with pytest.raises(CheckpointError, match=r"lacks .*input_blocks\.3\.0\.in_layers\.2\.weight"):
        open_model(write_ldm(tmp_path / "a.safetensors", tensors))


def test_a_model_that_is_told_the_guidance_asks_once_a_step(tmp_path: Path) -> None:
    config = replace(TINY, unet=replace(TINY.unet, guidance=16))
    folder = write_diffusers(tmp_path / "lcm", config, tokenizer=tiny_tokenizer())
    pipeline = load(str(folder), device="cpu", dtype="float32")
    seen: list[int] = []
    network = pipeline.networks["unet"]
    network.conv_out.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    pictures = [
        pipeline.txt2img("the red apple", seed=1, cfg_scale=scale, negative_prompt=negative, **SIZE)
        for scale, negative in ((8.5, ""), (8.5, "dog"), (1.5, ""))
    ]
    assert seen == [1] * 4 * 3
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]
    options = ("--size", "64x64", "--seed", 1, "--device", "cpu", "--dtype", "float32")
    result = sdscratch("txt2img", "the red apple", "-m", folder, *options, "--json", "-o", tmp_path / "a.png")
    assert result.code == 0, result.stderr
    said = json.loads(result.stdout)["options"]
    assert (said["steps"], said["cfg_scale"], said["sampler"]) == (4, 8.5, "lcm")


SIZE = {"width": 64, "height": 64}
