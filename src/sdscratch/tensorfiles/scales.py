"""8-bit weights in a safetensors file: integers, and their scales in a tensor beside them.

Metadata with the key `sdscratch.scales` say that the file has such, and how the scales' names end. A tensor
NAME of the type I8 with a tensor NAME + ending (F16 or F32, [rows, k]; rows: the first side of NAME) stands
for numbers: a row's numbers in their order, all further sides together, are cut into k equal parts, and each
number is its integer times its part's scale. k is 1 (`int8`: a scale for each output channel), or as large as
makes parts of 32 numbers (`q8_0`: the very numbers of ggml's type). This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sdscratch.tensorfiles.header import TensorInfo

__all__ = ["SCALES", "SUFFIX", "scaled"]

SCALES = "sdscratch.scales"
SUFFIX = ".scales"
FORMS = ("F16", "F32")


def scaled(metadata: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The names of integers that stand for numbers, each with that of its scales.

    Raises:
        ValueError: scales without integers, or of a type or shape that cannot be theirs.
    """
    if SCALES not in metadata:
        return {}
    suffix = metadata[SCALES]
    if not suffix:
        raise ValueError(f"its {SCALES} are an empty text, and not how the names of scales end")
    found = {}
    for name, info in tensors.items():
        if not name.endswith(suffix):
            continue
        integers = tensors.get(owner := name.removesuffix(suffix))
        if integers is None or integers.dtype != "I8":
            raise ValueError(f"tensor {name!r} holds scales, but no integers are called {owner!r}")
        if info.dtype not in FORMS or not _fit(integers.shape, info.shape):
            raise ValueError(
                f"tensor {name!r} holds scales as {info.dtype} {list(info.shape)}, which cannot be those of "
                f"integers {list(integers.shape)}"
            )
        found[owner] = name
    return found


def _fit(shape: tuple[int, ...], scales: tuple[int, ...]) -> bool:
    if len(shape) < 2 or len(scales) != 2 or scales[0] != shape[0] or scales[1] < 1:
        return False
    return math.prod(shape[1:]) % scales[1] == 0
