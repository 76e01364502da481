"""The header of a GGUF file, as stable-diffusion.cpp and other programs of ggml's write them.

After the letters GGUF a version (2 or 3), how many tensors and how many entries of metadata there are, these,
and a line for each tensor: name, sides (the fastest first), type, and where its bytes begin, counted from the
end of all that, rounded up to `general.alignment`. All numbers are little-endian. Like every file's, all that
it says is checked before it is used. This module imports no torch.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from sdscratch.tensorfiles.header import DTYPES, MAX_HEADER, MAX_NAME, Header, Span, TensorInfo

__all__ = ["TYPES", "read_gguf"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 100_000  # tensors, or entries of metadata
MAX_TEXT = 16 << 20  # a vocabulary, in the metadata
MAX_DEPTH = 2  # arrays in arrays
MAX_DIMENSIONS = 4
ALIGNMENT = 32

# Numbers of ggml's types; the quantised ones are those of `header.BLOCKS`.
TYPES = {
    0: "F32",
    1: "F16",
    30: "BF16",
    28: "F64",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
}
# Types that exist and are not read, so that an error can name them.
OTHERS = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
# Numbers of the metadata's types: how struct has them.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9


@dataclass
class _Reader:
    """The file from its beginning on, as far as a header may go."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("it ends within its header, or that is longer than any model's")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self, most: int = MAX_TEXT) -> str:
        length = self.number("Q")
        if length > most:
            raise ValueError(f"it holds a text of {length} bytes")
        return self.take(length).decode()

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY or depth == MAX_DEPTH:
            raise ValueError(f"its metadata hold a value of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:  # of which only the place is of interest
            return self.take(count * struct.calcsize(f"<{SCALARS[inner]}"))
        if count > len(self.data):
            raise ValueError(f"its metadata hold an array of {count} values")
        return [self.value(inner, depth + 1) for _ in range(count)]


def read_gguf(file: BinaryIO, size: int) -> Header:
    """Names, types, shapes (in torch's order), places and the texts of the metadata.

    Raises:
        ValueError: no GGUF file, a type that is not read, or a header that the file contradicts.
    """
    read = _Reader(file.read(min(size, MAX_HEADER)))
    version = read.number("I") if read.take(4) == MAGIC else None
    if version not in VERSIONS:
        raise ValueError(f"it is of GGUF's version {version}; versions 2 and 3 are read")
    tensors, entries = read.number("Q"), read.number("Q")
    if max(tensors, entries) > MAX_COUNT:
        raise ValueError("it says that it holds more than any model")
    metadata = {read.text(MAX_NAME): read.value(read.number("I")) for _ in range(entries)}
    described = [_tensor(read) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise ValueError(f"its alignment is {alignment!r}")
    start = -(-read.at // alignment) * alignment
    infos = {name: info for name, info, _ in described}
    if len(infos) < len(described):
        raise ValueError("two of its tensors have one name")
    spans = {name: Span(start + offset, start + offset + info.bytes) for name, info, offset in described}
    for name, span in spans.items():
        if span.end > size:
            raise ValueError(
                f"it ends after {size} of {span.end} bytes, within {name!r}: the download was cut; "
                "fetch it again"
            )
    texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return Header(infos, spans, texts)


def _tensor(read: _Reader) -> tuple[str, TensorInfo, int]:
    name = read.text(MAX_NAME)
    dimensions = read.number("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(read.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = read.number("I"), read.number("Q")
    if kind not in TYPES:
        told = OTHERS.get(kind, f"number {kind}")
        raise ValueError(f"tensor {name!r} is of the type {told}, which is not read")
    info = TensorInfo(TYPES[kind], shape)
    if math.prod(max(side, 1) for side in shape) >= 2**60 or offset >= 2**60:
        raise ValueError(f"tensor {name!r} has an impossible shape or place")
    if info.dtype not in DTYPES and shape[-1] % info.block:
        raise ValueError(
            f"tensor {name!r} of shape {list(shape)} cannot be of the type {info.dtype}, "
            f"whose blocks are {info.block}"
        )
    return name, info, offset
