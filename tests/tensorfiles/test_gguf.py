"""GGUF files: values are the `gguf` package's to the last bit; a file that lies is refused in a sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdscratch import load
from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.gguf import TYPES
from sdscratch.tensorfiles.header import BLOCKS, FLOATS
from sdscratch.tensorfiles.quantised import dequantised, quantised_q8_0
from sdscratch.tensorfiles.reader import open_tensors
from support.checkpoints import TINY, ldm_tensors, self_contained
from support.cli import sdscratch

# Where a block's float16 numbers stand.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}


def of(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


def random_blocks(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Blocks of any bits, but for their scales, which are finite."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, BLOCKS[dtype][1]), dtype=np.uint8)
    for at in HALVES[dtype]:
        scales = generator.normal(0, 0.02, count).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks


def write(path: Path, tensors: dict[str, Tensor], dtype: str, metadata: dict[str, str] | None = None) -> Path:
    """A file as stable-diffusion.cpp makes one: matrices that fit quantised, all else in float16 or 32."""
    writer = gguf.GGUFWriter(path, "sd1", endianess=gguf.GGUFEndian.LITTLE)
    for key, text in (metadata or {}).items():
        writer.add_string(key, text)
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        fits = dtype in BLOCKS and values.ndim == 2 and values.shape[-1] % BLOCKS[dtype][0] == 0
        kind = dtype if fits or dtype not in BLOCKS else "F16" if values.ndim > 1 else "F32"
        if values.ndim == 1:
            kind = "F32"
        writer.add_tensor(name, gguf.quants.quantize(values, of(kind)), raw_dtype=of(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("dtype", BLOCKS)
def test_every_bit_of_every_block_is_read_as_ggml_reads_it(dtype: str) -> None:
    blocks = random_blocks(dtype, 300)
    wanted = gguf.quants.dequantize(blocks, of(dtype))
    found = dequantised(torch.from_numpy(blocks).flatten(), dtype, wanted.shape)
    assert found.dtype == torch.float32
    assert found.numpy().tobytes() == wanted.astype(np.float32).tobytes()


def test_sizes_and_numbers_of_types_are_ggmls() -> None:
    for number, name in TYPES.items():
        assert of(name).value == number
        if name in BLOCKS:
            assert gguf.GGML_QUANT_SIZES[of(name)] == BLOCKS[name]
    assert set(BLOCKS) <= FLOATS


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=32, max_size=32))
def test_q8_0_is_written_as_ggml_writes_it(numbers: list[float]) -> None:
    values = np.array([numbers], np.float32)
    wanted = gguf.quants.quantize(values, of("Q8_0"))
    assert quantised_q8_0(torch.from_numpy(values)).numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"])
def test_a_model_in_it_is_the_model_that_the_package_reads(dtype: str, tmp_path: Path) -> None:
    tensors = ldm_tensors()
    path = write(tmp_path / "model.gguf", tensors, dtype, self_contained())
    files = open_model(path)
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    kinds = set()
    for weight in files.stored:
        theirs = reader[weight.ldm]
        kinds.add(theirs.tensor_type.name)
        wanted = gguf.quants.dequantize(theirs.data, theirs.tensor_type).reshape(weight.shape)
        assert np.array_equal(files.read(weight).float().numpy(), wanted), weight.ldm
        assert files.info(weight).dtype == theirs.tensor_type.name
    assert dtype in kinds


def test_pictures_are_drawn_from_it_and_it_is_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", ldm_tensors(), "Q8_0", self_contained())
    convert(open_model(path), tmp_path / "model.safetensors", "ldm")
    words = {"seed": 1, "steps": 2, "width": 64, "height": 64}
    pictures = [
        load(str(tmp_path / name), device="cpu", dtype="float32").txt2img("a dog", **words)
        for name in ("model.gguf", "model.safetensors")
    ]
    assert pictures[0] == pictures[1]
    result = sdscratch("info", path)
    assert result.code == 0, result.stderr
    assert b"Q8_0" in result.stdout


def header(*, version: int = 3, tensors: int = 1, entries: int = 0, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def described(name: bytes, sides: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", kind, offset)


KEY = struct.pack("<Q", 1) + b"k"
LIES = {
    "a version of the future": (header(version=9), "version 9"),
    "more tensors than any model": (header(tensors=2**60), "more than any model"),
    "an end within the header": (header(body=b"\5\0\0"), "ends within its header"),
    "a name beyond the end": (header(body=struct.pack("<Q", 2**63)), "a text of"),
    "a name that is no text": (header(body=described(b"\xff", (32,), 0)), "decode"),
    "an unknown type": (header(body=described(b"x", (32,), 77)), "type number 77, which is not read"),
    "a type that is not read": (header(body=described(b"x", (256,), 16)), "type IQ2_XXS, which is not read"),
    "a block that is cut": (header(body=described(b"x", (64,), 8)) + b"\0" * 60, "the download was cut"),
    "half a block": (header(body=described(b"x", (40,), 8)) + b"\0" * 99, "whose blocks are 32"),
    "five dimensions": (header(body=described(b"x", (1, 1, 1, 1, 1), 0)), "has 5 dimensions"),
    "an endless shape": (header(body=described(b"x", (2**32, 2**32), 0)), "impossible shape"),
    "a place beyond the end": (header(body=described(b"x", (4,), 0, 2**40)), "the download was cut"),
    "an array in arrays": (
        header(
            entries=1,
            tensors=0,
            body=KEY + struct.pack("<IIQIQIQ", 9, 9, 1, 9, 1, 9, 1),
        ),
        "unknown type 9",
    ),
    "an array of endless arrays": (
        header(entries=1, tensors=0, body=KEY + struct.pack("<IIQ", 9, 8, 2**40)),
        "an array of",
    ),
    "two of one name": (
        header(tensors=2, body=described(b"x", (1,), 0) * 2) + b"\0" * 64,
        "two of its tensors have one name",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_in_one_sentence(lie: str, tmp_path: Path) -> None:
    data, said = LIES[lie]
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_tensors(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_another_model_and_other_shapes_are_named(tmp_path: Path) -> None:
    flux = write(tmp_path / "flux.gguf", {"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 32)}, "Q8_0")
    with pytest.raises(CheckpointError, match="is a Flux model"):
        open_model(flux)
    tensors = ldm_tensors()
    name = "model.diffusion_model.time_embed.0.weight"
    tensors[name] = torch.zeros(64, 32)
    with pytest.raises(CheckpointError, match=r"time_embed\.0\.weight as Q8_0 \[64, 32\], expected"):
        open_model(write(tmp_path / "wrong.gguf", tensors, "Q8_0", {"sdscratch.config": TINY.to_json()}))


def test_truncated_anywhere_it_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf", {"x": torch.rand(4, 64), "y": torch.rand(7)}, "Q8_0").read_bytes()
    ends = [*range(60), *range(60, len(whole) - 32, 7)]
    path = tmp_path / "cut.gguf"
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError) as caught:
            open_tensors(path)
        assert "\n" not in str(caught.value)
