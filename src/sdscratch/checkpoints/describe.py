"""What a model is, in words and figures, and what any file of tensors is by its header (`addons.describe`).

This module imports no torch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdscratch.checkpoints.layouts import PARTS
from sdscratch.checkpoints.model import CONFIG, ModelFiles
from sdscratch.checkpoints.shapes import SHAPES, WHAT
from sdscratch.checkpoints.tokenizers import TOKENIZER
from sdscratch.tensorfiles.header import TensorInfo
from sdscratch.tensorfiles.identify import Kind
from sdscratch.tensorfiles.reader import TensorFile

__all__ = ["Facts", "describe_file", "describe_model", "is_model"]

Facts = dict[str, Any]  # as JSON takes it


def is_model(file: TensorFile, kind: Kind) -> bool:
    """Whether a file, identified as `kind`, is to be opened as a whole model."""
    return CONFIG in file.metadata or kind in SHAPES


def describe_model(files: ModelFiles) -> Facts:
    """A whole model, checked in full, and its hash."""
    parts = {
        part: _count(files.info(weight) for weight in files.stored if weight.part == part) for part in PARTS
    }
    return {
        "what": WHAT.get(files.config, "a model of its own shape"),
        "layout": files.layout,
        "bytes": sum(stored.file.path.stat().st_size for stored in _files(files).values()),
        "hash": files.hash(),
        "parts": parts,
        "parameters": sum(part["parameters"] for part in parts.values()),
        "tokenizer": TOKENIZER in files.metadata or (files.path / "tokenizer").is_dir(),
        "ema": files.has_ema,
        "defaults": asdict(files.defaults),
        "config": json.loads(files.config.to_json()),
        "dropped": list(files.dropped),
        "metadata": _texts(files.metadata),
    }


def _files(files: ModelFiles) -> dict[Path, Any]:
    return {stored.file.path: stored for stored in files.stored.values()}


def describe_file(file: TensorFile) -> Facts:
    """Any file of tensors, by its header."""
    return {
        "format": file.kind,
        "bytes": file.path.stat().st_size,
        "tensors": len(file.tensors),
        **_count(file.tensors.values()),
        "metadata": _texts(file.metadata),
        "ignored": list(file.ignored),
    }


def _count(infos: Iterable[TensorInfo]) -> Facts:
    """How many numbers, and in which types: the commonest first."""
    dtypes: Counter[str] = Counter()
    for info in infos:
        dtypes[info.dtype] += math.prod(info.shape)
    return {"parameters": dtypes.total(), "dtypes": [name for name, _ in dtypes.most_common()]}


def _texts(metadata: Any) -> dict[str, str]:
    """The metadata but for the tokenizer, which is half a megabyte."""
    return {key: text for key, text in metadata.items() if key != TOKENIZER}
