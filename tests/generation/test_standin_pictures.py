"""Every path to a picture runs on the stand-in for a GPU: whatever a GPU refuses or waits for fails here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdscratch.addons.control_requests import ControlRequest
from sdscratch.generation.enlarge import Upscaler
from sdscratch.generation.opening import open_all
from sdscratch.generation.pipeline import Pipeline, start
from sdscratch.options import GenerateOptions
from support.checkpoints import SMALLER, TINY, ldm_tensors, self_contained, write_ldm
from support.controlnets import TINY_ADAPTER, TINY_CONTROL, hint, write_control
from support.loras import changes, is_attention, targets, write_lora
from support.standin import StandIn, placement, standing_in
from support.upscalers import TINY_COMPACT, random_tensors

SIZE = {"width": 64, "height": 64, "seed": 5, "cfg_scale": 4.0}
LOOP = {("generation/sampling.py", "steps"): 2}  # NaN is looked for, at the first step and the last


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and add-ons."""
    folder = tmp_path_factory.mktemp("standin")
    write_ldm(folder / "small.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))
    return folder


@pytest.fixture(scope="module")
def gpu() -> Iterator[StandIn]:
    """A CUDA device, for all tests of this module."""
    with standing_in("cuda") as mode:
        yield mode


@pytest.fixture(scope="module")
def small(folder: Path, gpu: StandIn) -> Pipeline:
    return start(open_all(str(folder / "small.safetensors")), placement())


def draw(pipeline: Pipeline, mode: StandIn, prompt: str = "a dog", **asked: Any) -> StandIn:
    """A picture of 3 steps; what the mode saw of its making."""
    mode.reads.clear()
    mode.uploads.clear()
    picture = pipeline.txt2img(prompt, **{**SIZE, "steps": 3, **asked})
    assert isinstance(picture, Image.Image)
    return mode


def in_the_loop(mode: StandIn) -> dict[tuple[str, str], int]:
    """Reads in the sampling loop."""
    return {place: count for place, count in mode.reads.items() if place[0] in ("generation/sampling.py",)}


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpm++sde", "unipc", "lcm"])
def test_samplers_draw(sampler: str, small: Pipeline, gpu: StandIn) -> None:
    draw(small, gpu, sampler=sampler, noise="nv" if sampler == "euler_a" else "cpu")
    assert in_the_loop(gpu) == LOOP


def test_nothing_more_is_read_in_more_steps(small: Pipeline, gpu: StandIn) -> None:
    few = in_the_loop(draw(small, gpu, steps=3, sampler="euler"))
    recorded, played = gpu.recordings, gpu.playings
    many = in_the_loop(draw(small, gpu, steps=7, sampler="euler"))
    assert few == many
    assert gpu.recordings == recorded  # the graph is there
    assert gpu.playings == played + 7


GUIDED: dict[str, dict[str, Any]] = {
    "none": {"cfg_scale": 1.0},
    "rescaled": {"rescale_cfg": 0.7},
    "threshold": {"dynamic_threshold": "3,99.5"},
    "projected": {"apg": "0.1,-0.5,15"},
    "perturbed": {"pag_scale": 3.0},
    "perturbed alone": {"pag_scale": 3.0, "cfg_scale": 1.0},
    "freeu": {"freeu": "1.5,1.6,0.9,0.2"},
    "interval": {"cfg_interval": "0.3:5"},
    "deep cache": {"deep_cache": 2},
    "velocity": {"prediction": "v", "zero_snr": True},
    "and": {"prompt": "a dog AND a cat :0.5"},
    "edited": {"prompt": "a [dog:cat:0.5] [red|green]"},
    "weighted, as ComfyUI": {"prompt": "a (dog:1.3)", "like": "comfyui"},
    "varied": {"variation_strength": 0.2, "variation_seed": 4, "seed_resize": "96x64", "ensd": 3},
    "skipping": {"clip_skip": 0, "negative_prompt": "the cat"},
    "seamless": {"seamless": "xy"},
    "window": {"width": 128, "window": 64},
    "tile": {"width": 192, "height": 192, "tile": 128},
}


@pytest.mark.parametrize("name", GUIDED)
def test_what_is_done_to_sampling(name: str, small: Pipeline, gpu: StandIn) -> None:
    asked = {"sampler": "euler", **GUIDED[name]}
    draw(small, gpu, asked.pop("prompt", "a dog"), **asked)
    assert in_the_loop(gpu) == LOOP


def test_pictures_are_drawn_at_once_and_sent_one_by_one(small: Pipeline, gpu: StandIn) -> None:
    gpu.reads.clear()
    pictures = small.txt2img("a dog", batch_count=3, batch_size=3, steps=2, sampler="euler_a", **SIZE)
    assert len(pictures) == 3
    assert in_the_loop(gpu) == LOOP
    assert gpu.reads["images/tensors.py", "to_picture"] == 3


def sketch(side: int = 64) -> Image.Image:
    return Image.fromarray(np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3))


def mask(side: int = 64) -> Image.Image:
    levels = np.zeros((side, side, 3), np.uint8)
    levels[side // 2 :] = 255
    return Image.fromarray(levels)


FROM_A_PICTURE: dict[str, dict[str, Any]] = {
    "changed": {},
    "as A1111": {"like": "a1111"},
    "strength 0": {"strength": 0.0},
    "masked": {"mask": mask()},
    "softly": {"mask": mask(), "soft_mask": True},
    "of noise": {"mask": mask(), "masked_content": "noise", "like": "a1111"},
    "extended": {"extend": "left=64"},
}


@pytest.mark.parametrize("name", FROM_A_PICTURE)
def test_pictures_are_changed(name: str, small: Pipeline, gpu: StandIn) -> None:
    gpu.reads.clear()
    asked = {"strength": 0.7, **FROM_A_PICTURE[name]}
    small.img2img(sketch(), "a dog", seed=1, steps=3, sampler="euler", **asked)
    assert in_the_loop(gpu) in ({}, LOOP)


@pytest.mark.parametrize("channels", [8, 9])
def test_models_that_are_told_of_a_picture(channels: int, folder: Path, gpu: StandIn, tmp_path: Path) -> None:
    config = replace(SMALLER, unet=replace(SMALLER.unet, in_channels=channels))
    file = write_ldm(tmp_path / "model.safetensors", ldm_tensors(config), self_contained(config))
    pipeline = start(open_all(str(file)), placement())
    beside = {"mask": mask()} if channels == 9 else {"image_cfg_scale": 1.5}
    pipeline.img2img(sketch(), "a dog", seed=1, steps=2, strength=1.0, **beside)
    if channels == 9:
        draw(pipeline, gpu, steps=2)


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_second_passes(upscaler: str, small: Pipeline, gpu: StandIn) -> None:
    draw(small, gpu, hires=2.0, hires_strength=0.6, hires_upscaler=upscaler, sampler="euler")
    assert in_the_loop(gpu) == {place: count + 1 for place, count in LOOP.items()}  # its one step is the last


@pytest.mark.parametrize("axes", ["", "xy"])
def test_upscalers(axes: str, gpu: StandIn, tmp_path: Path) -> None:
    save_file(random_tensors(TINY_COMPACT, "compact"), tmp_path / "compact.safetensors")
    upscaler = Upscaler(str(tmp_path / "compact.safetensors"), placement())
    assert upscaler(sketch(), (160, 160), axes=axes).size == (160, 160)


def test_previews(small: Pipeline, gpu: StandIn) -> None:
    assert len(small.preview(torch.zeros(2, 4, 4, 4, device="meta"))) == 2


def test_add_ons(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRAs, one of them at some steps alone, a textual inversion, ControlNet and adapter."""
    file = write_ldm(tmp_path / "tiny.safetensors", ldm_tensors(), self_contained())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loras").mkdir()
    for name, seed in (("one", 0), ("loras/two", 1)):
        write_lora(tmp_path / f"{name}.safetensors", changes(filter(is_attention, targets()), seed=seed))
    save_file({"emb_params": torch.randn(2, TINY.text.width)}, tmp_path / "zorb.safetensors")
    write_control(tmp_path / "control.safetensors", TINY_CONTROL)
    write_control(tmp_path / "adapter.safetensors", TINY_ADAPTER, prefix=False)
    opened = open_all(
        str(file), lora=str(tmp_path / "one.safetensors"), embedding=str(tmp_path / "zorb.safetensors")
    )
    pipeline = start(opened, placement())
    asked = {"sampler": "euler"}
    draw(pipeline, gpu, "a dog zorb", **asked)
    assert in_the_loop(gpu) == LOOP
    draw(pipeline, gpu, "a dog zorb <lora:two:0.5:start=1:stop=2>", **asked)
    assert in_the_loop(gpu) == LOOP
    controls = [
        ControlRequest(str(tmp_path / f"{name}.safetensors"), hint(), weight=0.8)
        for name in ("control", "adapter")
    ]
    draw(pipeline, gpu, **asked, control=controls)
    assert in_the_loop(gpu) == LOOP


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("mps", torch.float16), ("cuda", torch.bfloat16)],
    ids=str,
)
def test_whole_pictures_on_other_devices(kind: str, dtype: torch.dtype, folder: Path) -> None:
    """With what could ask for float64: projections, samplers' own solutions, bands, windows."""
    with standing_in(kind) as mode:
        pipeline = start(open_all(str(folder / "small.safetensors")), placement(dtype))
        draw(pipeline, mode, sampler="unipc", apg="0.1,-0.5,15", dynamic_threshold=None, tile=128, width=192)
        draw(pipeline, mode, sampler="dpm++sde", rescale_cfg=0.5, pag_scale=2.0, seamless="x")
        pipeline.img2img(sketch(), "a dog", seed=1, steps=3, mask=mask(), tile=0)
        pipeline.preview(torch.zeros(1, 4, 4, 4, device="meta"))
    assert mode.recordings == (0 if kind == "mps" else mode.recordings)
    assert (mode.recordings > 0) == (kind == "cuda")


def test_a_recorded_network_is_held_to_the_rules_of_a_capture(folder: Path) -> None:
    """A U-Net that looks at a number of its own cannot be recorded, and the mode says where."""
    with standing_in("cuda") as mode:
        pipeline = start(open_all(str(folder / "small.safetensors")), placement())
        resolved = pipeline.resolve(GenerateOptions("a dog", **SIZE, steps=2))
        *_, last = pipeline.steps(resolved)
        assert last.latent.is_meta
        assert mode.recordings == 1
        assert mode.seen["convolution"] > 0
