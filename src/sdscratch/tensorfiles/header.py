"""The header of a safetensors file: names, types, shapes and metadata, without torch and without the weights.

A safetensors file is eight bytes of length (little-endian), that many bytes of JSON, and the tensors' bytes,
one after the other without gaps. The JSON comes from strangers, so everything it says is checked before use:
the file must hold exactly the bytes that the header describes.
This module imports no torch.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdscratch.errors import CheckpointError
from sdscratch.show import printable
from sdscratch.tensorfiles.sniff import sniff

__all__ = [
    "BLOCKS",
    "DTYPES",
    "FLOATS",
    "INT8",
    "Header",
    "Span",
    "TensorInfo",
    "read_header",
    "read_metadata",
]

# Name in the file: bytes an element, and what torch calls it. Types of less than a byte are not among them.
DTYPES: dict[str, tuple[int, str]] = {
    "F64": (8, "float64"),
    "F32": (4, "float32"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2"),
    "C64": (8, "complex64"),
    "I64": (8, "int64"),
    "I32": (4, "int32"),
    "I16": (2, "int16"),
    "I8": (1, "int8"),
    "U64": (8, "uint64"),
    "U32": (4, "uint32"),
    "U16": (2, "uint16"),
    "U8": (1, "uint8"),
    "BOOL": (1, "bool"),
}
# ggml's quantised types, which GGUF files hold: how many numbers a block has, and how many bytes.
BLOCKS: dict[str, tuple[int, int]] = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
INT8 = "INT8"  # 8-bit integers with scales beside them (`scales`)
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", INT8, *BLOCKS}

# SD 1.x needs 156 kB; parsed JSON takes some twenty times its size in memory.
MAX_HEADER = 16 << 20
MAX_DIMENSIONS = 64
MAX_NAME = 300  # characters


@dataclass(frozen=True)
class TensorInfo:
    """What a tensor is: its type by safetensors' name ("F32", "BF16", "I64", …) or ggml's, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many bytes the elements take."""
        if self.dtype in BLOCKS:
            return math.prod(self.shape) // self.block * BLOCKS[self.dtype][1]
        if self.dtype == INT8:
            return math.prod(self.shape)
        return DTYPES[self.dtype][0] * math.prod(self.shape)

    @property
    def block(self) -> int:
        """How many numbers are stored together: one, unless they are quantised."""
        return BLOCKS[self.dtype][0] if self.dtype in BLOCKS else 1


@dataclass(frozen=True)
class Span:
    """Where a tensor's elements lie: bytes `start` to `end` of the file."""

    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself, in the file's order."""

    tensors: Mapping[str, TensorInfo]
    spans: Mapping[str, Span]
    metadata: Mapping[str, str]


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; {} if it has none.

    Raises:
        CheckpointError: not a safetensors file, or a damaged one.
    """
    return dict(read_header(path).metadata)


def read_header(path: str | Path) -> Header:
    """Names, types, shapes, places and metadata of a safetensors file.

    Raises:
        CheckpointError: missing, not a safetensors file, or one whose header and size contradict each other.
    """
    name = printable(path)
    if sniff(path) != "safetensors":
        raise CheckpointError(
            f"{name} is another file of weights, no safetensors file; convert-weights makes one"
        )
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, MAX_HEADER))
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror}") from None
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{name} has a header of {length} bytes, more than any model needs; look elsewhere"
        )
    if len(text) < length:
        raise CheckpointError(f"{name} ends within its header, so the download was cut; fetch it again")
    try:
        return _parse(text, 8 + length, size)
    except RecursionError:
        raise CheckpointError(
            f"{name} is a damaged safetensors file: its header is nested too deep"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{name} is a damaged safetensors file: {printable(error)}") from None


def _parse(text: bytes, start: int, size: int) -> Header:
    """The header of a file of `size` bytes, its data beginning at `start`; ValueError says what is wrong."""
    # decoded here, for json.loads would guess the encoding
    record = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    if not isinstance(record, dict):
        raise ValueError("its header is no JSON object")
    metadata = record.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not all texts")
    tensors, spans = {}, {}
    for name, entry in record.items():
        tensors[name], span = _tensor(name, entry)
        spans[name] = Span(start + span.start, start + span.end)
    _check_coverage(spans, start, size)
    return Header(tensors, spans, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"its header has {twice!r} twice")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"its header holds {name}")


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, Span]:
    name.encode()  # half of a surrogate pair is no character: UnicodeEncodeError is a ValueError
    if len(name) > MAX_NAME:
        raise ValueError(f"it holds a name of {len(name)} characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} is of the unknown type {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has an impossible shape or place")
    # [0, 2**64 - 1] holds nothing, yet torch's strides overflow: count each empty dimension as one
    if math.prod(max(side, 1) for side in shape) >= 2**60:
        raise ValueError(f"tensor {name!r} has an impossible shape")
    info, span = TensorInfo(dtype, tuple(shape)), Span(*offsets)
    if span.end - span.start != info.bytes:
        raise ValueError(f"tensor {name!r} of shape {shape} and type {dtype} cannot be {offsets} in the file")
    return info, span


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_coverage(spans: Mapping[str, Span], start: int, size: int) -> None:
    """The tensors must fill the rest of the file, in some order, without a gap, an overlap or a rest."""
    end = start
    for name, span in sorted(spans.items(), key=lambda item: (item[1].start, item[1].end)):
        if span.start != end:
            raise ValueError(f"tensor {name!r} overlaps another or leaves a gap")
        end = span.end
    if end > size:
        raise ValueError(f"it ends after {size} of {end} bytes, so the download was cut; fetch it again")
    if end < size:
        raise ValueError(f"it goes on for {size - end} bytes after its last tensor")
