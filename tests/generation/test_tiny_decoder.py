"""`--decoder tiny`: the tiny autoencoder draws the picture, as diffusers' does, and the record says so."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdscratch import Pipeline, load
from sdscratch.errors import CheckpointError
from sdscratch.images import read_records
from sdscratch.images.tensors import to_picture, to_tensor
from sdscratch.options import GenerateOptions
from support.cli import sdscratch
from support.reference import difference, sketch

WORDS = {"seed": 5, "steps": 2, "width": 72, "height": 64}


@pytest.fixture(scope="module")
def reference() -> Any:
    """diffusers' tiny autoencoder, narrow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderTiny
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, latent_channels=4
    ).eval()


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "taesd"
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path, folder: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32", taesd=str(folder))


def last_latent(pipeline: Pipeline, init: Image.Image | None = None, **options: Any) -> torch.Tensor:
    *_, last = pipeline.steps(pipeline.resolve(GenerateOptions("a dog", **WORDS, **options)), init=init)
    return last.latent


def test_the_picture_is_what_diffusers_tiny_autoencoder_shows(pipeline: Pipeline, reference: Any) -> None:
    latent = last_latent(pipeline)
    with torch.inference_mode():
        expected = to_picture(reference.decode(latent).sample)
    assert difference(pipeline.txt2img("a dog", **WORDS, decoder="tiny"), expected)[0] <= 1
    assert difference(pipeline.txt2img("a dog", **WORDS), expected)[0] > 20


def test_a_picture_to_start_from_is_encoded_by_its_encoder(pipeline: Pipeline, reference: Any) -> None:
    init = sketch(72, 64)
    with torch.inference_mode():
        expected = reference.encode(to_tensor(init)).latents
    found = last_latent(pipeline, init, strength=0.0, decoder="tiny")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert pipeline.parts_for(pipeline.resolve(GenerateOptions("", decoder="tiny")), from_init=True) == (
        "text",
        "unet",
    )


def test_two_files_of_one_autoencoder_are_found_by_the_decoders_name(
    pipeline: Pipeline, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    for half in ("encoder", "decoder"):
        part = {name: tensor for name, tensor in state.items() if name.startswith(f"{half}.")}
        save_file(part, tmp_path / f"taesd_{half}.safetensors")
    apart = load(
        str(tiny_model), device="cpu", dtype="float32", taesd=str(tmp_path / "taesd_decoder.safetensors")
    )
    init = sketch(72, 64)
    for one, other in zip(
        *(last_latent(each, init, strength=0.0, decoder="tiny") for each in (apart, pipeline)), strict=True
    ):
        assert torch.equal(one, other)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    alone = load(
        str(tiny_model), device="cpu", dtype="float32", taesd=str(tmp_path / "taesd_decoder.safetensors")
    )
    own = last_latent(pipeline, init, strength=0.0)
    assert torch.equal(last_latent(alone, init, strength=0.0, decoder="tiny"), own)  # the model's own encodes


def test_the_record_says_what_drew_it_and_the_picture_is_drawn_again_by_it(
    tiny_model: Path, folder: Path, tmp_path: Path
) -> None:
    common = ("-m", tiny_model, "--taesd", folder, "--decoder", "tiny", "--size", "72x64", "--steps", 2)
    result = sdscratch("txt2img", "a dog", *common, "--seed", 5, "-o", tmp_path / "a.png", "-q", "--json")
    assert result.code == 0, result.stderr
    record = read_records(tmp_path / "a.png").record
    assert record is not None
    assert record.options.decoder == "tiny"
    assert record.taesd is not None
    assert record.taesd.name == "taesd"
    assert json.loads(result.stdout)["taesd"]["hash"] == record.taesd.hash
    assert "VAE Decoder: TAESD" in record.infotext()
    plan = tmp_path / "plan.jsonl"
    line = {"prompt": "a dog", "seed": 5, "size": "72x64", "steps": 2, "decoder": "tiny"}
    line |= {"model": str(tiny_model), "taesd": str(folder)}
    plan.write_text(json.dumps(line))
    again = sdscratch("run", plan, "-o", tmp_path / "many", "--name", "{n}.png", "-q")
    assert again.code == 0, again.stderr
    assert (tmp_path / "many/1.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_without_a_tiny_autoencoder_it_is_refused_before_anything_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    result = sdscratch("txt2img", "a", "-m", tiny_model, "--decoder", "tiny", "-o", tmp_path / "a.png")
    assert result.code == 3
    assert "tiny-taesd.safetensors; name one with --taesd FILE" in result.stderr
    with pytest.raises(CheckpointError, match="--decoder tiny needs a tiny autoencoder"):
        load(str(tiny_model), device="cpu").txt2img("a dog", decoder="tiny")
    assert not list(tmp_path.iterdir())


def test_the_built_in_model_has_one(tmp_path: Path) -> None:
    pipeline = load("default", device="cpu")
    picture = pipeline.txt2img("a red apple", seed=0, steps=4, decoder="tiny")
    full = pipeline.txt2img("a red apple", seed=0, steps=4)
    error = np.mean((np.asarray(picture, float) - np.asarray(full, float)) ** 2)
    assert 15 < 10 * np.log10(255**2 / error) < 40
