"""Models that take more than the latent are told apart, and go from each layout to the other and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.shapes import SD1_INPAINTING, SD1_INSTRUCTED, SHAPES, WHAT
from sdscratch.tensorfiles.identify import Kind
from support.checkpoints import TINY, ldm_tensors, tiny_tokenizer, write_diffusers, write_ldm


@pytest.mark.parametrize(("channels", "kind"), [(9, "Inpaint"), (8, "InstructPix2Pix")])
def test_both_layouts_are_converted_into_each_other(channels: int, kind: str, tmp_path: Path) -> None:
    config = replace(TINY, unet=replace(TINY.unet, in_channels=channels))
    tensors = ldm_tensors(config)
    metadata = {"sdscratch.config": config.to_json(), "sdscratch.tokenizer": tiny_tokenizer().to_json()}
    file = write_ldm(tmp_path / "model.safetensors", tensors, metadata)
    folder = tmp_path / "folder"
    convert(open_model(file), folder, "diffusers")
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == (
        f"StableDiffusion{kind}Pipeline"
    )
    assert json.loads((folder / "unet" / "config.json").read_text())["in_channels"] == channels
    back = tmp_path / "back.safetensors"
    convert(open_model(folder), back, "ldm")
    theirs = write_diffusers(tmp_path / "theirs", config, tensors, tokenizer=tiny_tokenizer())
    for path in (folder, back, theirs):
        model = open_model(path)
        assert model.config == config
        for weight in weights(config):
            wanted = tensors[weight.ldm].reshape(weight.shape)
            assert torch.equal(model.read(weight).reshape(weight.shape), wanted), weight.name


def test_single_files_without_a_configuration_are_of_these_shapes() -> None:
    assert SHAPES[Kind.INPAINTING] == SD1_INPAINTING
    assert SHAPES[Kind.PIX2PIX] == SD1_INSTRUCTED
    assert "inpainting" in WHAT[SD1_INPAINTING]
    assert "instructions" in WHAT[SD1_INSTRUCTED]
