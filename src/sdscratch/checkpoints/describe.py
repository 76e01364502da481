"""What a file of weights is, in words and figures, by its header, and a LoRA's alphas.

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
from sdscratch.checkpoints.lora import LORA_KINDS, alpha, rank, read_modules
from sdscratch.checkpoints.lora_names import part_of
from sdscratch.checkpoints.model import CONFIG, ModelFiles, open_model
from sdscratch.checkpoints.tokenizers import TOKENIZER
from sdscratch.models.config import SD1
from sdscratch.tensorfiles.header import TensorInfo
from sdscratch.tensorfiles.identify import Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

__all__ = ["describe"]

Facts = dict[str, Any]  # as JSON takes it

MODELS = (Kind.SD1, Kind.SD1_EMA)


def describe(path: Path) -> Facts:
    """The facts of a file or folder; `what` says what it is.

    A whole model is checked in full and hashed; of anything else only the header is read.

    Raises:
        CheckpointError: unreadable, damaged, or a model that is not complete.
    """
    if path.is_dir():
        return _model(open_model(path))
    file = open_tensors(path)
    identity = identify({name: info.shape for name, info in file.tensors.items()})
    if CONFIG in file.metadata or identity.kind in MODELS:
        return _model(open_model(path))
    lora = {"lora": _lora(file)} if identity.kind in LORA_KINDS else {}
    return {"what": identity.kind.value, "told_by": identity.key} | lora | _file(file)


def _model(files: ModelFiles) -> Facts:
    parts = {
        part: _count(files.info(weight) for weight in files.stored if weight.part == part) for part in PARTS
    }
    return {
        "what": "a Stable Diffusion 1.x model" if files.config == SD1 else "a model of its own shape",
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


def _file(file: TensorFile) -> Facts:
    return {
        "format": file.kind,
        "bytes": file.path.stat().st_size,
        "tensors": len(file.tensors),
        **_count(file.tensors.values()),
        "metadata": _texts(file.metadata),
        "ignored": list(file.ignored),
    }


def _lora(file: TensorFile) -> Facts:
    """What a LoRA changes, and how much it can: whether it fits a model is not asked."""
    modules = [module for module in read_modules(file)[0] if "down" in module.tensors]
    shapes = [file.tensors[module.tensors["down"]].shape for module in modules]
    convolutions = sum(len(shape) == 4 and shape[2:] != (1, 1) for shape in shapes)
    parts = Counter(part_of(module.name) for module in modules)
    return {
        "network": "LoRA of linear layers and convolutions (LoCon)"
        if convolutions
        else "LoRA of linear layers",
        "ranks": sorted({rank(file, module) for module, shape in zip(modules, shapes, strict=True) if shape}),
        "alphas": sorted({alpha(file, module) for module in modules} - {None}),
        "modules": len(modules),
        "convolutions": convolutions,
        "parts": {part: parts[part] for part in ("text", "unet") if parts[part]},
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
