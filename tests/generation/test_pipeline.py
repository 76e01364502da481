"""The Python API, and what happens when a network's numbers go out of range."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sdscratch
from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.cli.generate import img2img, txt2img
from sdscratch.errors import CheckpointError, DeviceError, SdscratchError, UsageError
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.images import read_picture
from sdscratch.jobs.options import LineOptions
from sdscratch.options import GenerateOptions, ResolvedOptions
from support.cli import sdscratch as command_line
from support.pictures import gradient

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 5}
FEW = {"steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_the_package_offers_load_and_nothing_that_is_not_there() -> None:
    assert sdscratch.load is load
    assert sdscratch.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="has no attribute 'frob'"):
        _ = sdscratch.frob  # type: ignore[attr-defined]


def test_a_prompt_gives_a_picture(pipeline: Pipeline) -> None:
    picture = pipeline.txt2img("a dog", **SMALL)
    assert isinstance(picture, Image.Image)
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert same(picture, pipeline.txt2img("a dog", **SMALL))
    assert not same(picture, pipeline.txt2img("a dog", **SMALL | {"seed": 6}))


def test_a_batch_count_gives_a_list_of_the_pictures_of_seeds_that_count_up(pipeline: Pipeline) -> None:
    alone = [pipeline.txt2img("a dog", **SMALL | {"seed": seed}) for seed in (5, 6, 7)]
    for size in (1, 2):
        together = pipeline.txt2img("a dog", batch_count=3, batch_size=size, **SMALL)
        assert isinstance(together, list)
        assert all(map(same, alone, together))
    assert len(pipeline.txt2img("a dog", batch_count=1, **SMALL)) == 1


@pytest.mark.parametrize("batch", [{"batch_count": 0}, {"batch_count": -1}, {"batch_size": 0}])
def test_no_picture_is_no_batch(batch: dict[str, int], pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="both must be at least 1"):
        pipeline.txt2img("a dog", **SMALL, **batch)


def test_python_and_the_command_line_give_the_same_pictures(
    pipeline: Pipeline, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["-m", tiny_model, "--device", "cpu", "--dtype", "float32", "--steps", 2, "--seed", 5, "-q"]
    out, init = tmp_path / "dog.png", tmp_path / "init.png"
    command_line("txt2img", "a dog", *words, "--size", "64x64", "-o", out)
    assert same(read_picture(out), pipeline.txt2img("a dog", **SMALL))
    # a picture that is half transparent
    picture = gradient(80, 64).convert("RGBA")
    picture.putalpha(gradient(80, 64).convert("L"))
    picture.save(init)
    more = ["--size", "64x64", "--fit", "contain", "--background", "navy", "--strength", 0.5, "--overwrite"]
    command_line("img2img", init, "a dog", *words, *more, "-o", out)
    changed = pipeline.img2img(picture, "a dog", strength=0.5, fit="contain", background="navy", **SMALL)
    assert same(read_picture(out), changed)


def test_python_takes_the_names_of_the_command_line() -> None:
    of_load = {"model", "tokenizer", "lora", "embedding", "vae", "taesd"}
    of_the_machine = {"device", "dtype", "compile", "low_memory"}
    own = of_load | of_the_machine
    batches = {"batch_count", "batch_size"}
    of_the_command = {
        "size",
        "output",
        "preview",
        "overwrite",
        "json",
        "quiet",
        "verbose",
        "strip",
        "sidecar",
        "film",
        "film_loop",
        "frames",
        "show",
        "film_to",
        "film_to_seed",
    }
    beside_init = {"init", "prompt", "init_img", "fit", "background"}
    of_a_line = {each.name for each in fields(LineOptions)}
    taken = {name for command in (txt2img, img2img) for name in inspect.signature(command).parameters}
    names = taken - own - batches - of_the_command - beside_init - of_a_line
    assert names | {"prompt"} == {each.name for each in fields(ResolvedOptions)}
    assert names | {"prompt"} == {each.name for each in fields(GenerateOptions)}


def test_a_picture_is_changed_and_stays_itself(pipeline: Pipeline) -> None:
    init = gradient(72, 64)
    before = init.copy()
    changed = pipeline.img2img(init, "a dog", strength=0.5, **FEW)
    assert (changed.mode, changed.size) == ("RGB", (72, 64))
    assert same(init, before)
    several = pipeline.img2img(init, "a dog", strength=0.5, batch_count=2, batch_size=2, **FEW)
    assert same(several[0], changed)
    assert not same(several[0], several[1])


def test_an_init_of_any_mode_is_taken_for_what_it_shows(pipeline: Pipeline) -> None:
    deep = Image.fromarray(np.asarray(gradient(64, 64).convert("L")).astype(np.uint16) * 257)
    grey = gradient(64, 64).convert("L")
    assert deep.mode == "I;16"
    assert same(*(pipeline.img2img(i, "a dog", strength=0.5, **FEW) for i in (deep, grey)))


@pytest.mark.parametrize("strength", [0.0, 0.49])
def test_no_steps_left_means_encoded_and_decoded_only(strength: float, pipeline: Pipeline) -> None:
    options = pipeline.resolve(GenerateOptions("a dog", strength=strength, **FEW), gradient(64, 64))
    assert pipeline.parts_for(options, from_init=True) == ("encoder", "decoder")
    states = list(pipeline.steps(options, count=2, init=gradient(64, 64)))
    assert [(state.done, state.total) for state in states] == [(0, 0)]
    one, other = pipeline.decode(states[0].latent)
    assert same(one, other)  # no noise: the posterior's mean
    assert same(one, pipeline.img2img(gradient(64, 64), "a cat", strength=0.0, seed=99))


def test_strength_1_runs_every_step(pipeline: Pipeline) -> None:
    options = pipeline.resolve(GenerateOptions("a dog", strength=1.0, **FEW), gradient(64, 64))
    assert [state.done for state in pipeline.steps(options, init=gradient(64, 64))] == [0, 1, 2]
    assert set(pipeline.parts_for(options, from_init=True)) == {"text", "unet", "encoder", "decoder"}


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpm++2m"])
def test_steps_count_from_0_to_all(sampler: str, pipeline: Pipeline) -> None:
    options = pipeline.resolve(GenerateOptions("a dog", sampler=sampler, **SMALL | {"steps": 3}))
    states = list(pipeline.steps(options, count=2))
    assert [(state.done, state.total) for state in states] == [(done, 3) for done in range(4)]
    assert states[0].denoised is None
    for state in states:
        assert (state.latent.shape, state.latent.dtype) == ((2, 4, 8, 8), torch.float32)
    # the last one's latent is the picture: nothing is left to be denoised
    assert states[-1].denoised is not None
    assert torch.allclose(states[-1].latent, states[-1].denoised, rtol=0.0, atol=0.2)  # ddim ends at σ 0.03


def test_an_init_of_another_size_is_the_callers_mistake(pipeline: Pipeline) -> None:
    options = pipeline.resolve(GenerateOptions("a dog", **SMALL))
    with pytest.raises(ValueError, match="the init picture is"):
        next(pipeline.steps(options, init=gradient(72, 64)))


def test_loading_tells_each_network(tiny_model: Path) -> None:
    with load(str(tiny_model), device="cpu") as pipeline:
        options = pipeline.resolve(GenerateOptions("a dog"))
        assert list(pipeline.load(pipeline.parts_for(options))) == ["text", "unet", "decoder"]


def test_load_refuses_what_it_must(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError):
        load("nowhere.safetensors")
    with pytest.raises(UsageError):
        load(str(tiny_model), device="frob")
    with pytest.raises(UsageError):
        load(str(tiny_model), dtype="frob")


def test_out_of_memory_while_drawing_is_a_device_error(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    pipeline = load(str(tiny_model), device="cpu")
    monkeypatch.setattr(ModelFiles, "load", fail)
    with pytest.raises(DeviceError, match="out of memory; ask for a smaller picture"):
        pipeline.txt2img("a dog", **SMALL)


def test_what_is_cut_of_a_prompt_is_said_once_for_a_batch(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.txt2img("dog " * 80, batch_count=2, prompt_syntax="plain", **SMALL)
    assert len(caplog.messages) == 1
    pipeline.txt2img("dog " * 81, prompt_syntax="plain", **SMALL)
    assert len(caplog.messages) == 2


# --- Numbers out of range --------------------------------------------------------------------------------


class Overflowing(nn.Module):
    """A network as it is, but one that gives infinity in 16 bits, or always."""

    def __init__(self, network: nn.Module, always: bool) -> None:
        super().__init__()
        self.network = network
        self.always = always

    def forward(self, *inputs: object, **more: object) -> object:
        result = self.network(*inputs, **more)
        broken = self.always or next(self.parameters()).dtype != torch.float32
        factor = torch.inf if broken else 1.0
        if isinstance(result, Tensor):
            return result * factor
        return type(result)(result.mean * factor, result.log_variance)


PARTS: dict[Part, str] = {
    "text": "text encoder", "unet": "U-Net", "encoder": "picture encoder", "decoder": "picture decoder",
}  # fmt: skip
Broken = Callable[[Part, str, bool], Pipeline]


@pytest.fixture
def broken(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """A pipeline one of whose networks overflows."""
    whole = ModelFiles.load

    def make(broken_part: Part, dtype: str, always: bool) -> Pipeline:
        def load_broken(self: ModelFiles, part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
            network = whole(self, part, device, dtype)
            return Overflowing(network, always) if part == broken_part else network

        monkeypatch.setattr(ModelFiles, "load", load_broken)
        return load(str(tiny_model), device="cpu", dtype=dtype)

    return make


def drawn(pipeline: Pipeline) -> Image.Image:
    return pipeline.img2img(gradient(64, 64), "a dog", strength=1.0, **FEW)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_stage_that_overflows_runs_again_in_float32(
    part: Part, dtype: str, broken: Broken, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = broken(part, dtype, False)
    options = pipeline.resolve(GenerateOptions("a dog", strength=1.0, **FEW), gradient(64, 64))
    states = list(pipeline.steps(options, init=gradient(64, 64)))
    picture = pipeline.decode(states[-1].latent)[0]
    gave = f"the {PARTS[part]} gave NaN or infinity in {dtype}; trying again in float32"
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, gave)]
    # only the U-Net's stage has steps to begin anew
    assert [state.done for state in states] == ([0, 1, 2] if part != "unet" else [0, 0, 1, 2])
    exact = np.asarray(drawn(load(str(tiny_model), device="cpu", dtype="float32")), dtype=int)
    assert np.abs(np.asarray(picture, dtype=int) - exact).mean() < 12
    caplog.clear()
    drawn(pipeline)
    assert caplog.messages == []  # it stays in float32


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_stage_that_overflows_in_float32_is_an_error(
    part: Part, dtype: str, broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"the {PARTS[part]} gave NaN or infinity in float32; the checkpoint is damaged"
    with pytest.raises(SdscratchError, match=said) as caught:
        drawn(broken(part, dtype, True))
    assert caught.value.exit_code == 1
    assert len(caplog.messages) == (dtype != "float32")


def test_no_black_picture_is_written(broken: Broken, tiny_model: Path, tmp_path: Path) -> None:
    broken("decoder", "bfloat16", True)  # what it patches holds for the command as well
    words = ["-m", tiny_model, "--size", "64x64", "--steps", 1, "--dtype", "bfloat16", "--device", "cpu"]
    result = command_line("txt2img", "a dog", *words, "-o", tmp_path / "new" / "dog.png")
    assert (result.code, result.stdout) == (1, b"")
    *_, warning, error = result.stderr.splitlines()
    assert warning == "warning: the picture decoder gave NaN or infinity in bfloat16; trying again in float32"
    assert error.startswith("sdscratch: error: the picture decoder gave NaN or infinity in float32; ")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_weight_that_only_float32_can_hold_is_met(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file

    from support.checkpoints import self_contained, write_ldm

    tensors = load_file(tiny_model)
    bias = next(name for name in tensors if name.endswith("decoder.conv_out.bias"))
    # 7e4 is beyond float16; what float32 adds up to stays finite, and is white
    tensors[bias] = torch.full_like(tensors[bias], 7e4)
    file = write_ldm(tmp_path / "odd.safetensors", tensors, self_contained())
    picture = load(str(file), device="cpu", dtype="float16").txt2img("a dog", **SMALL)
    assert caplog.messages == ["the picture decoder gave NaN or infinity in float16; trying again in float32"]
    assert np.asarray(picture).min() == 255
    tensors[bias][0] = torch.nan
    file = write_ldm(tmp_path / "nan.safetensors", tensors, self_contained())
    with pytest.raises(SdscratchError, match="the picture decoder gave NaN or infinity in float32"):
        load(str(file), device="cpu", dtype="float16").txt2img("a dog", **SMALL)
