"""Weights in 8 bits: written, read as what they stand for, kept so in memory; and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdscratch import load
from sdscratch.addons.apply import add
from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.eight_bits import is_quantised, read_integers
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.fast.prepare import prepare
from sdscratch.fast.widened import WidenedConv, WidenedLinear
from sdscratch.models.quantised import Quantised
from sdscratch.tensorfiles.scales import SCALES
from support.checkpoints import TINY, ldm_tensors, self_contained, write_ldm
from support.cli import sdscratch
from support.loras import changes, targets, write_lora

WORDS = {"seed": 1, "steps": 1, "width": 64, "height": 64}
KINDS = ("int8", "q8_0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in float16, and what is made of it: int8.safetensors, q8_0.safetensors, q8_0.gguf."""
    made = tmp_path_factory.mktemp("eight")
    half = {name: tensor.half() for name, tensor in ldm_tensors().items()}
    source = open_model(write_ldm(made / "half.safetensors", half, self_contained()))
    for kind in KINDS:
        convert(source, made / f"{kind}.safetensors", "ldm", dtype=kind)
    convert(source, made / "q8_0.gguf", "ldm", dtype="q8_0")
    return made


def defined(tensor: Tensor, kind: str) -> np.ndarray:
    """What 8 bits make of a weight, row by row in float64 but for what the format rounds."""
    rows = tensor.float().flatten(1).double().numpy()
    if kind == "q8_0" and rows.shape[1] % 32 == 0:
        blocks = gguf.quants.quantize(rows.astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0).reshape(tensor.shape)
    scales = np.float32(np.abs(rows).max(1, keepdims=True) / 127)
    integers = np.rint((rows / scales).astype(np.float32))
    return np.float32(integers.astype(np.float32) * scales).reshape(tensor.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_what_its_integers_stand_for(kind: str, folder: Path) -> None:
    source, files = open_model(folder / "half.safetensors"), open_model(folder / f"{kind}.safetensors")
    stored = load_file(folder / f"{kind}.safetensors")
    assert files.metadata[SCALES] == ".scales"
    for weight in source.stored:
        exact, found = source.read(weight), files.read(weight)
        if not is_quantised(weight):
            assert torch.equal(found, exact), weight.name
            assert files.info(weight).dtype == "F16"
            continue
        assert files.info(weight).dtype == "INT8"
        assert np.array_equal(found.numpy(), defined(exact, kind)), weight.name
        # as documented, by hand: a row's parts, each times its scale
        scales, integers = stored[f"{weight.ldm}.scales"], stored[weight.ldm]
        parts = integers.reshape(len(scales), scales.shape[1], -1).float() * scales.float()[..., None]
        assert torch.equal(parts.reshape(weight.shape), found)
        assert (found - exact.float()).abs().max() <= exact.abs().max() / 200


def test_the_file_is_half_as_large(folder: Path) -> None:
    assert _expected_size("int8") <= 0.52
    assert _expected_size("q8_0") <= 0.55


def _expected_size(kind: str) -> float:
    """Of the full size, by count: bytes of weights by those of float16."""
    from sdscratch.checkpoints.eight_bits import scales_of
    from sdscratch.checkpoints.layouts import weights
    from sdscratch.models.config import SD1

    half = eight = 0
    for weight in weights(SD1):
        count = torch.Size(weight.shape).numel()
        half += 2 * count
        eight += count + scales_of(weight.shape, kind).bytes if is_quantised(weight) else 2 * count
    return eight / half


@pytest.mark.parametrize("part", ["text", "unet", "decoder"])
def test_networks_keep_the_integers(part: str, folder: Path) -> None:
    files, plain = open_model(folder / "int8.safetensors"), open_model(folder / "half.safetensors")
    network = files.load(part, "cpu", torch.float32)
    held = [module for module in network.modules() if isinstance(module, Quantised)]
    assert held
    floats = sum(weight.numel() for weight in network.parameters())
    integers = sum(module.integers.numel() for module in held)
    assert floats + integers == sum(w.numel() for w in plain.load(part, "cpu", torch.float32).parameters())
    prepared = prepare(network)
    assert sum(w.numel() for w in prepared.parameters()) == floats  # nothing has been widened for good


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_the_same_values_in_floats(kind: str, folder: Path) -> None:
    wide = folder / f"{kind}-wide.safetensors"
    convert(open_model(folder / f"{kind}.safetensors"), wide, "ldm", dtype="float32")
    one, other = (
        np.asarray(
            load(str(path), device="cpu", dtype="float32").txt2img("a dog", seamless="x", **WORDS), np.int16
        )
        for path in (folder / f"{kind}.safetensors", wide)
    )
    assert np.abs(one - other).max() <= 1


def test_a_lora_on_it_is_the_lora_on_its_values(folder: Path) -> None:
    convert(open_model(folder / "int8.safetensors"), folder / "values.safetensors", "ldm", overwrite=True)
    chosen = [weight for weight in targets() if "self_attention" in weight.name]
    lora = write_lora(folder / "lora.safetensors", changes(chosen))
    eight, wide = (
        add(open_model(folder / name), lora=str(lora)) for name in ("int8.safetensors", "values.safetensors")
    )
    for weight in eight.stored:
        assert torch.equal(eight.read(weight).float(), wide.read(weight).float()), weight.name
        assert (read_integers(eight, weight) is None) == (weight in chosen or not is_quantised(weight))
    network = eight.load("unet", "cpu", torch.float32)
    assert isinstance(network.get_submodule("down.1.1.block.self_attention.query"), nn.Linear)
    assert isinstance(network.get_submodule("down.1.1.block.feed_forward.expand"), Quantised)


def test_on_a_processor_of_float32_alone_the_integers_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdscratch.fast import prepare as module
    from sdscratch.fast import widened

    for place in (module, widened):
        monkeypatch.setattr(place, "multiplies", lambda dtype: dtype == torch.float32)
    network = prepare(open_model(folder / "int8.safetensors").load("decoder", "cpu", torch.bfloat16))
    forms = [m for m in network.modules() if isinstance(m, (WidenedLinear, WidenedConv)) and m.quantised]
    assert forms
    with torch.inference_mode():
        assert network(torch.zeros(1, 4, 8, 8).bfloat16()).isfinite().all()


def test_gguf_is_what_the_package_reads(folder: Path) -> None:
    source, files = open_model(folder / "half.safetensors"), open_model(folder / "q8_0.gguf")
    reader = gguf.GGUFReader(folder / "q8_0.gguf")
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    kinds = {}
    for weight in source.stored:
        tensor = theirs[weight.ldm]
        kinds.setdefault(tensor.tensor_type.name, []).append(weight)
        assert tuple(tensor.shape) == weight.ldm_shape[::-1]
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        assert np.array_equal(files.read(weight).float().numpy(), wanted)
    assert kinds.keys() == {"F16", "F32", "Q8_0"}
    assert all(len(weight.ldm_shape) == 2 for weight in kinds["Q8_0"])  # blocks lie along the last side
    assert not any("embed" in weight.ldm for weight in kinds["Q8_0"])  # as stable-diffusion.cpp converts
    assert reader.get_field("general.architecture").contents() == "sd1"
    assert files.config == TINY
    assert files.own_tokenizer is not None
    assert load(str(folder / "q8_0.gguf"), device="cpu").txt2img("a dog", **WORDS).size == (64, 64)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_gguf_holds_floats_too(dtype: str | None, folder: Path, tmp_path: Path) -> None:
    source = open_model(folder / "half.safetensors")
    convert(source, tmp_path / "out.gguf", "ldm", dtype=dtype)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds == {"BF16" if dtype else "F16"}
    files = open_model(tmp_path / "out.gguf")
    for weight in list(source.stored)[:20]:
        cast = source.read(weight).to(getattr(torch, dtype or "float16"))
        assert torch.equal(files.read(weight), cast)


def test_what_no_file_holds_is_said(folder: Path, tmp_path: Path) -> None:
    source = open_model(folder / "half.safetensors")
    with pytest.raises(UsageError, match=r"folders hold no int8; write a \.safetensors file"):
        convert(source, tmp_path / "out", "diffusers", dtype="int8")
    with pytest.raises(UsageError, match="files hold no int8; choose q8_0"):
        convert(source, tmp_path / "out.gguf", "ldm", dtype="int8")
    with pytest.raises(UsageError, match=r"would be a \.safetensors file"):
        convert(source, tmp_path / "out.bin", "ldm", dtype="int8")
    tensors = ldm_tensors()
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    tensors[name][0, 0, 0, 0] = float("nan")
    bad = open_model(write_ldm(tmp_path / "nan.safetensors", tensors, self_contained()))
    for path, kind in ((tmp_path / "o.safetensors", "int8"), (tmp_path / "o.safetensors", "q8_0")):
        with pytest.raises(CheckpointError, match=f"NaN or infinity in {name}, which {kind} cannot"):
            convert(bad, path, "ldm", dtype=kind)
        assert not path.exists()


def rewritten(folder: Path, to: Path, **changed: Tensor | None) -> Path:
    """int8.safetensors with other tensors; None: without it."""
    tensors = load_file(folder / "int8.safetensors") | changed
    metadata = dict(open_model(folder / "int8.safetensors").metadata)
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, to, metadata)
    return to


OWNER = "model.diffusion_model.middle_block.0.in_layers.2.weight"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {f"{OWNER}.scales": torch.ones(63, 1)},
            r"scales as F32 \[63, 1\], which cannot be those of integers",
        ),
        ({f"{OWNER}.scales": torch.ones(64)}, r"scales as F32 \[64\], which cannot be"),
        ({f"{OWNER}.scales": torch.ones(64, 5)}, r"scales as F32 \[64, 5\], which cannot be"),
        ({f"{OWNER}.scales": torch.ones(64, 0)}, r"scales as F32 \[64, 0\], which cannot be"),
        ({f"{OWNER}.scales": torch.ones(64, 1).double()}, r"scales as F64 \[64, 1\], which cannot be"),
        ({OWNER: None}, "holds scales, but no integers are called"),
        ({OWNER: torch.zeros(64, 64, 3, 3)}, "holds scales, but no integers are called"),
        ({f"{OWNER}.scales": None}, "as I8 .*, expected"),
    ],
)
def test_scales_that_do_not_fit_are_refused(
    changed: dict[str, Tensor | None], said: str, folder: Path, tmp_path: Path
) -> None:
    path = rewritten(folder, tmp_path / "bad.safetensors", **changed)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    result = sdscratch("txt2img", "a dog", "-m", path, "-o", tmp_path / "a.png")
    assert (result.code, result.stdout) == (3, b"" if isinstance(result.stdout, bytes) else "")
    assert not (tmp_path / "a.png").exists()


def test_gguf_files_that_are_no_model_exit_with_3(tmp_path: Path) -> None:
    def described(name: bytes, sides: tuple[int, ...], kind: int) -> bytes:
        sizes = struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
        return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", kind, 0)

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    files = {
        "another model": (head + described(b"blk.0.attn_q.weight", (32, 4), 8) + bytes(200), ""),
        "a truncated block": (head + described(b"x", (64, 4), 8) + bytes(99), "the download was cut"),
        "an unknown type": (head + described(b"x", (64, 4), 99) + bytes(999), "type number 99"),
    }
    for name, (data, said) in files.items():
        (tmp_path / "a.gguf").write_bytes(data)
        result = sdscratch("txt2img", "a dog", "-m", tmp_path / "a.gguf", "-o", tmp_path / "a.png")
        assert result.code == 3, name
        assert said in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_the_command_writes_it_and_tells(folder: Path, tmp_path: Path) -> None:
    result = sdscratch(
        "convert-weights", folder / "half.safetensors", tmp_path / "o.gguf", "--dtype", "q8_0", "--json", "-q"
    )
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["verified"]
    told = sdscratch("info", folder / "int8.safetensors")
    assert b"INT8" in told.stdout if isinstance(told.stdout, bytes) else "INT8" in told.stdout
