"""A model as a GGUF file, as stable-diffusion.cpp reads it: LDM's names, matrices in Q8_0 where asked for.

The order of the bytes is told in `tensorfiles.gguf`, which reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import torch

from sdscratch.checkpoints.writer import Entry, Report
from sdscratch.tensorfiles.gguf import ALIGNMENT, MAGIC, TEXT, TYPES
from sdscratch.tensorfiles.header import TensorInfo

__all__ = ["write_gguf"]

VERSION = 3
UINT32 = 4
ARCHITECTURE = ("general.architecture", "sd1")  # what ComfyUI's reader of such files asks for
QUANTISATION = ("general.quantization_version", 2)
NUMBERS = {name: number for number, name in TYPES.items()}


def write_gguf(file: BinaryIO, entries: Sequence[Entry], metadata: Mapping[str, str], report: Report) -> None:
    """Write a GGUF file; the metadata are texts."""
    texts = dict([ARCHITECTURE]) | dict(metadata)
    head = MAGIC + struct.pack("<IQQ", VERSION, len(entries), len(texts) + 1)
    head += b"".join(_text(key) + struct.pack("<I", TEXT) + _text(value) for key, value in texts.items())
    head += _text(QUANTISATION[0]) + struct.pack("<II", UINT32, QUANTISATION[1])
    offset = 0
    for entry in entries:
        sides = entry.shape[::-1]
        head += _text(entry.name) + struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
        head += struct.pack("<IQ", NUMBERS[entry.dtype], offset)
        offset += _aligned(TensorInfo(entry.dtype, entry.shape).bytes)
    file.write(head + bytes(_aligned(len(head)) - len(head)))
    written = 0
    for entry in entries:
        data = entry.read().contiguous().reshape(-1).view(torch.uint8).numpy()
        file.write(data.data)
        file.write(bytes(_aligned(data.nbytes) - data.nbytes))
        written += data.nbytes
        report(written)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
