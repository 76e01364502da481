"""Which networks are in memory when, and what letting one go must not change."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from sdscratch.checkpoints.model import ModelFiles, Part, open_model
from sdscratch.checkpoints.network_file import PartFile
from sdscratch.checkpoints.taesd import taesd_beside, tensor_names
from sdscratch.device import choose
from sdscratch.generation import networks
from sdscratch.generation.conditioning import CONTEXTS_KEPT
from sdscratch.generation.networks import dtype_of
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.models.taesd import TinyDecoder
from sdscratch.options import GenerateOptions
from sdscratch.training.tasks.taesd import save_taesd, tiny_config
from support.checkpoints import TINY, ldm_tensors, self_contained, write_ldm
from support.cli import sdscratch
from support.pictures import gradient

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 5}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The networks in the order in which they are loaded."""
    parts: list[Part] = []
    load_one = ModelFiles.load

    def watched(self: ModelFiles, part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
        parts.append(part)
        return load_one(self, part, device, dtype)

    monkeypatch.setattr(ModelFiles, "load", watched)
    return parts


def open_tiny(model: Path, **options: bool) -> Pipeline:
    return load(str(model), device="cpu", dtype="float32", **options)


def resident(pipeline: Pipeline) -> set[Part]:
    return set(pipeline.networks._loaded)


def test_with_low_memory_one_network_is_held_and_the_pictures_are_the_same(
    tiny_model: Path, loaded: list[Part]
) -> None:
    plain, low = open_tiny(tiny_model), open_tiny(tiny_model, low_memory=True)
    init = gradient(64, 64)
    before = [plain.txt2img("a dog", **SMALL), plain.img2img(init, "a cat", steps=2, seed=1)]
    loaded.clear()
    assert list(low.load(("text", "unet", "decoder"))) == []
    after = low.txt2img("a dog", **SMALL)
    assert loaded == ["text", "unet", "decoder"]
    assert resident(low) == {"decoder"}
    changed = low.img2img(init, "a cat", steps=2, seed=1)
    assert loaded[3:] == ["encoder", "text", "unet", "decoder"]
    for one, other in zip(before, (after, changed), strict=True):
        assert np.array_equal(one, other)


def test_a_batch_loads_each_network_once(tiny_model: Path, loaded: list[Part]) -> None:
    low = open_tiny(tiny_model, low_memory=True)
    low.img2img(gradient(64, 64), "a dog", steps=2, seed=1, batch_count=3, batch_size=3)
    assert loaded == ["encoder", "text", "unet", "decoder"]


def test_what_is_large_is_let_go_on_a_cpu_and_prompts_are_remembered(
    tiny_model: Path, loaded: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = open_tiny(tiny_model)
    picture = plain.txt2img("a dog", **SMALL)
    assert resident(plain) == {"text", "unet", "decoder"}  # it is tiny
    monkeypatch.setattr(networks, "WORTH_LETTING_GO", 0)
    loaded.clear()
    frugal = open_tiny(tiny_model)
    assert np.array_equal(frugal.txt2img("a dog", **SMALL), picture)
    assert resident(frugal) == {"unet", "decoder"}
    frugal.txt2img("a dog", **SMALL | {"seed": 6})
    assert loaded == ["text", "unet", "decoder"]
    frugal.txt2img("a cat", **SMALL)
    assert loaded[3:] == ["text"]
    frugal.txt2img("a dog", **SMALL)
    assert loaded[4:] == []
    init = gradient(64, 64)
    for seed in (1, 2):  # they share the init picture
        frugal.img2img(init, "a dog", steps=2, seed=seed)
    assert loaded[4:] == ["encoder"]
    frugal.img2img(gradient(72, 64), "a dog", steps=2, seed=1)
    assert loaded[5:] == ["encoder"]


def test_on_a_gpu_all_stay(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "WORTH_LETTING_GO", 0)
    pipeline = open_tiny(tiny_model)
    _ = pipeline.networks["text"]
    on_gpu = networks.Placement(torch.device("cuda"), torch.float16, "a test")
    monkeypatch.setattr(pipeline.networks, "placement", on_gpu)
    pipeline.networks.done("text")
    assert resident(pipeline) == {"text"}


def test_only_the_newest_prompts_are_remembered(tiny_model: Path) -> None:
    pipeline = open_tiny(tiny_model)
    for index in range(CONTEXTS_KEPT + 3):
        next(pipeline.steps(pipeline.resolve(GenerateOptions(f"a dog {index}", **SMALL))))
    kept = [text for text, *_ in pipeline.encode_prompts._kept]
    assert len(kept) == CONTEXTS_KEPT
    assert kept[-2:] == ["", f"a dog {CONTEXTS_KEPT + 2}"]
    assert "a dog 0" not in kept


def test_a_network_that_needed_float32_needs_it_when_it_is_loaded_again(tiny_model: Path) -> None:
    pipeline = load(str(tiny_model), device="cpu", dtype="bfloat16", low_memory=True)
    assert dtype_of(pipeline.networks["unet"]) == torch.bfloat16
    pipeline.networks.fall_back(pipeline.networks.not_finite("unet"))
    assert dtype_of(pipeline.networks["decoder"]) == torch.bfloat16
    assert resident(pipeline) == {"decoder"}
    assert dtype_of(pipeline.networks["unet"]) == torch.float32


def test_low_memory_is_the_same_picture_on_the_command_line(tiny_model: Path, tmp_path: Path) -> None:
    words = ["txt2img", "a dog", "-m", tiny_model, "--steps", 1, "--seed", 5, "-q"]
    for size, same in (("64x64", True), ("576x64", False)):
        files = [tmp_path / f"{size}-{name}.png" for name in ("plain", "low", "whole")]
        for file, more in zip(files, ([], ["--low-memory"], ["--low-memory", "--tile", 0]), strict=True):
            assert sdscratch(*words, "--size", size, *more, "-o", file).code == 0
        assert files[0].read_bytes() == files[2].read_bytes()
        assert (files[0].read_bytes() == files[1].read_bytes()) == same  # the other's record tells of tiles
        plain, low, _ = (np.asarray(Image.open(file), dtype=int) for file in files)
        assert np.abs(plain - low).max() <= 1


# --- What stands beside the model's networks, or in their place ------------------------------------------


@pytest.fixture
def with_tiny_decoder(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with a tiny decoder beside it."""
    model = tmp_path / "mine.safetensors"
    model.symlink_to(tiny_model)
    config = tiny_config(TINY.autoencoder, 8)
    torch.manual_seed(0)
    save_taesd(taesd_beside(model), config, TinyDecoder(config), torch.float32, {})
    return model


def test_the_tiny_decoder_is_counted_and_let_go_with_the_others(with_tiny_decoder: Path) -> None:
    with open_tiny(with_tiny_decoder) as pipeline:
        pipeline.preview(torch.zeros(1, 4, 8, 8))
        network = weakref.ref(pipeline.networks["taesd"])
        assert isinstance(network(), TinyDecoder)
        assert pipeline.networks.sizes == {
            "taesd": sum(weight.nbytes for weight in pipeline.networks["taesd"].parameters())
        }
    assert network() is None
    assert pipeline.networks.sizes == {}
    shown = pipeline.preview(torch.zeros(1, 4, 8, 8))  # and loaded again when it is needed again
    assert np.array_equal(shown[0], open_tiny(with_tiny_decoder).preview(torch.zeros(1, 4, 8, 8))[0])


def test_with_low_memory_the_tiny_decoder_takes_no_network_s_place(
    with_tiny_decoder: Path, loaded: list[Part]
) -> None:
    low = open_tiny(with_tiny_decoder, low_memory=True)
    options = low.resolve(GenerateOptions("a dog", **SMALL))
    for progress in low.steps(options):
        if progress.denoised is not None:
            low.preview(progress.denoised)
    assert resident(low) == {"unet", "taesd"}
    low.decode(progress.latent)
    assert resident(low) == {"decoder", "taesd"}
    assert loaded == ["text", "unet", "decoder"]
    low.networks.done("taesd")
    assert resident(low) == {"decoder"}


def test_a_tiny_decoder_that_overflows_is_loaded_again_in_float32(
    with_tiny_decoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside = taesd_beside(with_tiny_decoder)
    tensors = load_file(beside)
    last = tensor_names(tiny_config(TINY.autoencoder, 8).blocks)["conv_out.bias"]
    (bias,) = (name for name in tensors if name.endswith(last))
    tensors[bias] = torch.full_like(tensors[bias], 7e4)  # beyond float16
    save_file(tensors, beside)
    pipeline = load(str(with_tiny_decoder), device="cpu", dtype="float16")
    for _ in range(2):
        (shown,) = pipeline.preview(torch.zeros(1, 4, 8, 8))
        assert np.asarray(shown).min() == 255
    assert caplog.messages == ["the tiny decoder gave NaN or infinity in float16; trying again in float32"]
    assert dtype_of(pipeline.networks["taesd"]) == torch.float32


def test_a_swapped_autoencoder_takes_the_part_s_place_and_gives_it_back(
    tiny_model: Path, tmp_path: Path
) -> None:
    other = open_model(write_ldm(tmp_path / "other.safetensors", ldm_tensors(TINY, seed=9), self_contained()))
    pipeline, theirs = open_tiny(tiny_model), open_tiny(other.path)
    own = pipeline.txt2img("a dog", **SMALL)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not np.array_equal(pipeline.decode(latent)[0], theirs.decode(latent)[0])
    file = PartFile(other, "decoder")
    pipeline.networks.attach("decoder", file)
    assert "decoder" not in resident(pipeline)
    assert np.array_equal(pipeline.decode(latent)[0], theirs.decode(latent)[0])
    first = pipeline.networks["decoder"]
    pipeline.networks.attach("decoder", file)  # the same again changes nothing
    assert pipeline.networks["decoder"] is first
    pipeline.networks.detach("decoder")
    assert np.array_equal(pipeline.txt2img("a dog", **SMALL), own)


def test_what_computes_together_is_held_together_and_recordings_go_with_either(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: compute)
    placement = replace(choose("cpu", "float32"), compiled=True)
    owner = networks.Networks(open_model(tiny_model), placement, low_memory=True)
    owner.attach("control", PartFile(open_model(tiny_model), "encoder"))
    unet, control = owner.together("unet", "control")
    assert set(owner.sizes) == {"unet", "control"}
    assert (owner["unet"], owner["control"]) == (unet, control)
    recorded = owner.computation("unet")
    assert owner.computation("unet") is recorded
    assert owner.computation("unet", "predict") is not recorded
    owner.detach("control")
    assert set(owner.sizes) == {"unet"}
    assert owner.computation("unet") is not recorded
    _ = owner["decoder"]
    assert set(owner.sizes) == {"decoder"}
    with pytest.raises(KeyError):
        _ = owner["control"]
