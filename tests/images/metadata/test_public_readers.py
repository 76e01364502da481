"""Public readers read what we write, and say of other tools' pictures what we say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from sdscratch.images import read_records, save_picture
from support.absent import absent
from support.pictures import gradient, record


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_ours_is_read(tmp_path: Path, suffix: str) -> None:
    made = record(prompt="a fox, (red:1.2)", negative_prompt="bad, worse", sampler="euler_a", seed=12)
    save_picture(gradient(), tmp_path / f"a.{suffix}", made)
    found = ParserManager().parse(tmp_path / f"a.{suffix}")
    assert found is not None
    (sampler,) = found.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a fox, (red:1.2)"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["bad, worse"]
    assert sampler.name == "Euler a"
    assert sampler.parameters["seed"] == "12"
    assert (sampler.model.name, sampler.model.hash) == ("v1-5", "6ce0161689")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_ours_is_read_by_sd_prompt_reader(tmp_path: Path, suffix: str) -> None:
    """It asks for an old Pillow; `pip install --no-deps sd-prompt-reader` serves the test."""
    try:
        from sd_prompt_reader.image_data_reader import ImageDataReader
    except ImportError:
        absent("sd-prompt-reader")
    made = record(
        prompt="a fox, (red:1.2)\nat night", negative_prompt="bad, worse", sampler="euler_a", seed=12
    )
    save_picture(gradient(), tmp_path / f"a.{suffix}", made)
    found = ImageDataReader(str(tmp_path / f"a.{suffix}"))
    assert (found.positive, found.negative) == ("a fox, (red:1.2)\nat night", "bad, worse")
    assert found.parameter == {
        "model": "v1-5", "sampler": "Euler a", "seed": "12", "cfg": "7.5", "steps": "30", "size": "512x512",
    }  # fmt: skip


GRAPH = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["4", 1]}},
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 20, "cfg": 7.5, "sampler_name": "euler", "scheduler": "karras", "denoise": 1,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
}  # fmt: skip
TYPES = {"model": "MODEL", "clip": "CLIP", "positive": "CONDITIONING", "negative": "CONDITIONING",
         "latent_image": "LATENT", "samples": "LATENT", "vae": "VAE", "images": "IMAGE"}  # fmt: skip
LINKS = [
    [number, int(value[0]), value[1], int(name), 0, TYPES[key]]
    for name, node in GRAPH.items()
    for number, (key, value) in enumerate(node["inputs"].items())  # type: ignore[attr-defined]
    if isinstance(value, list)
]
NOVELAI = json.dumps({"steps": 20, "sampler": "euler", "seed": 5, "scale": 7.5, "uc": "bad"})
INVOKEAI = {
    "positive_prompt": "a fox", "negative_prompt": "bad", "seed": 5, "cfg_scale": 7.5, "steps": 20,
    "scheduler": "euler", "model": {"model_name": "v1-5", "hash": "ab"}, "width": 512, "height": 768,
}  # fmt: skip
SD_METADATA = {
    "model_weights": "v1-5", "model_hash": "ab", "app_version": "2.3", "app_id": "invoke-ai/InvokeAI",
    "image": {
        "prompt": [{"prompt": "a fox [bad]", "weight": 1}], "seed": 5, "cfg_scale": 7.5, "steps": 20,
        "sampler": "euler", "width": 512, "height": 768,
    },
}  # fmt: skip
THEIRS = {
    "A1111": {
        "parameters": "a fox\nNegative prompt: bad\nSteps: 20, Sampler: euler, CFG scale: 7.5, Seed: 5"
    },
    "ComfyUI": {"prompt": json.dumps(GRAPH), "workflow": json.dumps({"links": LINKS})},
    "NovelAI": {
        "Software": "NovelAI",
        "Source": "Stable Diffusion 1D44365E",
        "Description": "a fox",
        "Comment": NOVELAI,
    },
    "InvokeAI": {"invokeai_metadata": json.dumps(INVOKEAI)},
    "InvokeAI, sd-metadata": {"sd-metadata": json.dumps(SD_METADATA)},
    "InvokeAI, Dream": {"Dream": '"a fox [bad]" -s 20 -S 5 -W 512 -H 768 -C 7.5 -A euler'},
}


@pytest.mark.parametrize("tool", THEIRS)
def test_both_read_the_same_of_others(tmp_path: Path, tool: str) -> None:
    info = PngInfo()
    for name, text in THEIRS[tool].items():
        info.add_text(name, text)
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    theirs = ParserManager().parse(path)
    ours = read_records(path).infotext
    assert theirs is not None
    assert ours is not None
    (sampler,) = theirs.samplers
    assert ours.prompt == ", ".join(prompt.value for prompt in sampler.prompts).strip()
    assert ours.negative_prompt == ", ".join(prompt.value for prompt in sampler.negative_prompts)
    assert (ours.parameters["Sampler"], ours.parameters["Seed"]) == (
        sampler.name,
        str(sampler.parameters["seed"]),
    )
    assert float(ours.parameters["CFG scale"]) == float(sampler.parameters["cfg_scale"])
