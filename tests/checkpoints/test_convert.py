"""Conversion: there and back bit by bit, read by diffusers, complete or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdscratch.checkpoints import convert as module
from sdscratch.checkpoints.convert import Conversion, convert, default_destination
from sdscratch.checkpoints.layouts import PARTS, weights
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.names import Layout, canonical
from sdscratch.checkpoints.shapes import SHAPES
from sdscratch.checkpoints.writer import save_model
from sdscratch.errors import CheckpointError, SdscratchError, TokenizerError, UsageError
from sdscratch.options import Defaults
from support.checkpoints import (
    SMALLER,
    TINY,
    ema_tensors,
    ldm_extras,
    ldm_tensors,
    our_tensors,
    self_contained,
    tiny_tokenizer,
    write_ckpt,
    write_diffusers,
    write_ldm,
)
from support.reference import Reference

LAYOUTS: list[Layout] = ["ldm", "diffusers"]
NAMES: dict[Layout, str] = {"ldm": "out.safetensors", "diffusers": "out"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_ldm(tmp_path / "model.safetensors", ldm_tensors() | ldm_extras(), self_contained())


def run(source: Path, path: Path, layout: Layout, **options: Any) -> Conversion:
    return convert(open_model(source), path, layout, **options)


def assert_same_bits(path: Path, expected: dict[str, Tensor]) -> None:
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)), name


def mixed() -> dict[str, Tensor]:
    """Weights of several types, with values that only a bitwise comparison tells apart."""
    tensors = ldm_tensors()
    for index, name in enumerate(sorted(tensors)):
        tensors[name] = tensors[name].to((torch.float32, torch.float16, torch.bfloat16)[index % 3])
    bias = tensors["first_stage_model.quant_conv.bias"]
    bias[:4] = torch.tensor([-0.0, float("nan"), float("inf"), 1e-38])
    return tensors


# There and back


def test_ckpt_to_ldm_to_diffusers_to_ldm_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdscratch.checkpoints.model.SHAPES", dict.fromkeys(SHAPES, TINY))
    tensors = mixed()
    write_ckpt(tmp_path / "model.ckpt", tensors | ldm_extras())
    for name, text in tiny_tokenizer().to_files().items():
        (tmp_path / name).write_text(text)
    first = run(tmp_path / "model.ckpt", tmp_path / "first.safetensors", "ldm")
    run(first.path, tmp_path / "folder", "diffusers")
    last = run(tmp_path / "folder", tmp_path / "last.safetensors", "ldm")
    assert_same_bits(first.path, tensors)
    assert_same_bits(last.path, tensors)
    assert first.tensors == last.tensors == len(weights(TINY))
    for result in (open_model(first.path), open_model(last.path)):
        assert result.config == TINY
        assert result.tokenizer.to_json() == tiny_tokenizer().to_json()


def test_a_models_defaults_and_origin_survive_the_way_through_a_folder(tmp_path: Path) -> None:
    defaults = Defaults(width=64, height=96, steps=20, cfg_scale=4.0, sampler="dpm++2m", scheduler="karras")
    origin = {"data": "pictograms", "licence": "OFL"}
    parts = our_tensors(SMALLER)
    path = tmp_path / "trained.safetensors"
    save_model(
        path,
        SMALLER,
        parts,  # type: ignore[arg-type]
        tokenizer=tiny_tokenizer(),
        defaults=defaults,
        provenance=origin,
        dtype=torch.float16,
    )
    run(path, tmp_path / "folder", "diffusers")
    run(tmp_path / "folder", tmp_path / "back.safetensors", "ldm")
    back = open_model(tmp_path / "back.safetensors")
    assert (back.config, back.defaults) == (SMALLER, defaults)
    record = json.loads(back.metadata["sdscratch.provenance"])
    for _ in range(2):
        record = json.loads(record["source_provenance"])
    assert record == origin
    for part in PARTS:
        for name, tensor in back.load(part, "cpu", torch.float16).state_dict().items():
            assert torch.equal(tensor, parts[part][name].half())


def test_the_same_source_gives_the_same_file(tmp_path: Path, source: Path) -> None:
    files = [run(source, tmp_path / f"{name}.safetensors", "ldm").path.read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_averages_are_written_as_the_weights(tmp_path: Path) -> None:
    path = write_ldm(tmp_path / "model.safetensors", ldm_tensors() | ema_tensors(), self_contained())
    convert(open_model(path, ema=True), tmp_path / "out.safetensors", "ldm")
    expected = ldm_tensors(seed=1)
    for name, tensor in load_file(tmp_path / "out.safetensors").items():
        if name.startswith("model.diffusion_model."):
            assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_are_changed_when_asked(tmp_path: Path, source: Path, layout: Layout) -> None:
    result = run(source, tmp_path / NAMES[layout], layout, dtype="float16")
    for tensor_file in [result.path] if layout == "ldm" else sorted(result.path.glob("*/*.safetensors")):
        assert {tensor.dtype for tensor in load_file(tensor_file).values()} == {torch.float16}


def test_a_value_too_large_for_the_type_is_refused_with_its_name(tmp_path: Path) -> None:
    tensors = ldm_tensors()
    tensors["model.diffusion_model.out.2.bias"][1] = 1e6
    path = write_ldm(tmp_path / "model.safetensors", tensors, self_contained())
    with pytest.raises(
        CheckpointError, match=r"model\.diffusion_model\.out\.2\.bias that are too large for float16"
    ):
        run(path, tmp_path / "out.safetensors", "ldm", dtype="float16")
    assert [found.name for found in tmp_path.iterdir()] == ["model.safetensors"]


# What is written


def test_a_single_file_holds_the_weights_and_says_what_it_is(tmp_path: Path, source: Path) -> None:
    with safe_open(source, "pt") as file:
        assert "betas" in file.keys()  # noqa: SIM118 (it is no dict)
    run(source, tmp_path / "out.safetensors", "ldm")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {weight.ldm for weight in weights(TINY)}
    assert metadata["format"] == "pt"
    assert json.loads(metadata["sdscratch.config"]) == json.loads(TINY.to_json())
    assert json.loads(metadata["sdscratch.provenance"]) == {
        "made_by": json.loads(metadata["sdscratch.provenance"])["made_by"],
        "source": "model.safetensors",
        "source_hash": open_model(source).hash(),
        "source_layout": "ldm",
        "ema": False,
        "dtype": "kept",
    }
    assert str(tmp_path) not in str(metadata)


def test_what_others_wrote_about_the_model_is_kept(tmp_path: Path) -> None:
    metadata = self_contained() | {"modelspec.title": "A model", "modelspec.license": "MIT"}
    path = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), metadata)
    run(path, tmp_path / "out.safetensors", "ldm")
    found = open_model(tmp_path / "out.safetensors").metadata
    assert (found["modelspec.title"], found["modelspec.license"]) == ("A model", "MIT")


def test_every_tensor_lies_at_a_multiple_of_its_elements_size(tmp_path: Path) -> None:
    path = write_ldm(tmp_path / "model.safetensors", mixed(), self_contained())
    result = run(path, tmp_path / "out.safetensors", "ldm").path.read_bytes()
    length = int.from_bytes(result[:8], "little")
    assert length % 8 == 0
    sizes = {"F32": 4, "F16": 2, "BF16": 2}
    for name, entry in json.loads(result[8 : 8 + length]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0


@contextmanager
def quiet() -> Iterator[None]:
    """Around other libraries' imports and loading, whose warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
        import transformers

        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        yield


def assert_components_hold(pipeline: Any, tensors: dict[str, Tensor]) -> None:
    """diffusers' pipeline has these weights, by LDM's names, in every component."""
    state = {}
    for component in ("unet", "vae", "text_encoder"):
        for name, tensor in getattr(pipeline, component).state_dict().items():
            if not name.endswith("position_ids"):
                state[canonical(f"{component}/{name}", "diffusers")] = tensor
    for weight in weights(TINY):
        assert torch.equal(state.pop(weight.diffusers), tensors[weight.ldm].reshape(weight.shape)), weight.ldm
    assert not state


def test_diffusers_loads_the_folder(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "out", "diffusers")
    with quiet():
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    assert_components_hold(pipeline, ldm_tensors())
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.scheduler.config.steps_offset == 1
    assert pipeline.safety_checker is None
    assert pipeline.tokenizer("a red dog")["input_ids"] == list(tiny_tokenizer().encode("a red dog").ids)


def test_diffusers_loads_the_single_file(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "out.safetensors", "ldm")
    reference = Reference(tmp_path / "out.safetensors", TINY, tiny_tokenizer(), tmp_path / "configs")
    assert_components_hold(reference.text, ldm_tensors())


# Tokenizers


def test_without_a_tokenizer_a_single_file_is_written_with_a_warning_but_no_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})
    result = run(path, tmp_path / "out.safetensors", "ldm")
    assert not result.has_tokenizer
    assert "will need --tokenizer" in caplog.text
    with pytest.raises(TokenizerError):
        run(path, tmp_path / "out", "diffusers")
    assert not (tmp_path / "out").exists()


# Complete or absent


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), SdscratchError),
    ],
    ids=["Ctrl-C", "disk full"],
)
@pytest.mark.parametrize("stage", ["writing", "verifying"])
def test_nothing_is_left_when_it_fails(
    tmp_path: Path,
    source: Path,
    layout: Layout,
    failure: BaseException,
    seen: type[BaseException],
    stage: str,
) -> None:
    def fail(now: str, done: int, total: int) -> None:
        if now == stage and done > total // 2:
            raise failure

    with pytest.raises(seen):
        run(source, tmp_path / NAMES[layout], layout, report=fail)
    assert contents(tmp_path) == ["model.safetensors"]


def test_a_disk_without_room_is_noticed_before_anything_is_written(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(SdscratchError, match=r"takes 0\.0 GB and its disk has 0\.0 GB left") as caught:
        run(source, tmp_path / "out.safetensors", "ldm")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_verifying_notices_a_single_bit(
    tmp_path: Path, source: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(file: Path | BinaryIO) -> None:
        with Path(file.name if layout == "ldm" else file / "vae/diffusion_pytorch_model.safetensors").open(
            "r+b"
        ) as f:  # type: ignore[union-attr,operator]
            f.seek(-1, os.SEEK_END)
            last = f.read(1)[0]
            f.seek(-1, os.SEEK_END)
            f.write(bytes([last ^ 1]))

    name = "write_safetensors" if layout == "ldm" else "write_folder"
    original: Callable[..., None] = getattr(module, name)

    def damaging(file: Any, *model: Any) -> None:
        original(file, *model)
        if layout == "ldm":
            file.flush()
        flip(file)

    monkeypatch.setattr(module, name, damaging)
    with pytest.raises(SdscratchError, match="differs from its source in"):
        run(source, tmp_path / NAMES[layout], layout)
    assert contents(tmp_path) == ["model.safetensors"]
    assert not run(source, tmp_path / NAMES[layout], layout, verify=False).verified


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_exists_is_replaced_only_when_asked(tmp_path: Path, source: Path, layout: Layout) -> None:
    path = tmp_path / NAMES[layout]
    run(source, path, layout)
    other = write_ldm(tmp_path / "other.safetensors", ldm_tensors(seed=3), self_contained())
    with pytest.raises(UsageError, match="exists already"):
        run(other, path, layout)
    run(other, path, layout, overwrite=True)
    weight = weights(TINY)[0]
    assert torch.equal(open_model(path).read(weight), ldm_tensors(seed=3)[weight.ldm])
    assert contents(tmp_path) == sorted(["model.safetensors", "other.safetensors", path.name])


def test_a_model_can_be_converted_onto_itself(source: Path) -> None:
    run(source, source, "ldm", dtype="float16", overwrite=True)
    assert {tensor.dtype for tensor in load_file(source).values()} == {torch.float16}


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path: Path, source: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="no diffusers folder, so it is not replaced"):
        run(source, tmp_path / "photos", "diffusers", overwrite=True)
    assert contents(tmp_path / "photos") == ["holiday.jpg"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_permissions_are_what_the_umask_leaves(tmp_path: Path, source: Path, layout: Layout) -> None:
    before = os.umask(0o027)
    try:
        path = run(source, tmp_path / NAMES[layout], layout).path
    finally:
        os.umask(before)
    for found in [path] if layout == "ldm" else [path, *path.rglob("*")]:
        assert found.stat().st_mode & 0o777 == (0o750 if found.is_dir() else 0o640)


def test_a_single_file_needs_its_suffix(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UsageError, match=r"would be a \.safetensors file"):
        run(source, tmp_path / "out.ckpt", "ldm")


def test_names_are_made_from_the_sources_and_never_its_own(tmp_path: Path, source: Path) -> None:
    def named(model: Path, layout: Layout, dtype: str | None = None, ema: bool = False) -> str:
        return default_destination(open_model(model), layout, tmp_path, dtype=dtype, ema=ema).name

    assert named(source, "ldm") == "model-converted.safetensors"
    assert named(source, "ldm", "float16") == "model-float16.safetensors"
    assert named(source, "ldm", "bfloat16", True) == "model-ema-bfloat16.safetensors"
    assert named(source, "diffusers") == "model"
    folder = write_diffusers(tmp_path / "folder", TINY)
    assert named(folder, "ldm") == "folder.safetensors"
    assert named(folder, "diffusers") == "folder-converted"
