"""Conversion: any model in, one self-contained file or a diffusers folder out, compared with what came in."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdscratch.checkpoints.eight_bits import KINDS, eight_bits, ggml_type, is_quantised
from sdscratch.checkpoints.gguf_writer import write_gguf
from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.writer import (
    PROVENANCE,
    TORCH_NAMES,
    Model,
    atomic_folder,
    write_folder,
    write_safetensors,
)
from sdscratch.errors import CheckpointError, SdscratchError, TokenizerError, UsageError
from sdscratch.files import atomic_write
from sdscratch.models.quantised import widened
from sdscratch.tensorfiles.header import BLOCKS, INT8
from sdscratch.tensorfiles.quantised import dequantised, quantised_q8_0
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.version import __version__

__all__ = ["DTYPES", "Conversion", "Report", "convert", "default_destination"]

log = logging.getLogger(__name__)

DTYPES = {
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
}  # what can be asked for, as safetensors calls it
UNPACKED = dict.fromkeys([*BLOCKS, INT8], "F32")  # what is kept of a quantised type: its very values
SUFFIX, GGUF = ".safetensors", ".gguf"
OWN_METADATA = "sdscratch."

Report = Callable[[str, int, int], None]  # is told the stage, and how many of how many bytes are done


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    path: Path
    layout: Layout
    tensors: int
    bytes: int  # of weights
    dropped: tuple[str, ...]
    has_tokenizer: bool
    verified: bool
    not_finite: tuple[str, ...] = ()  # the tensors that hold NaN or infinity, by the source's names


def default_destination(
    model: ModelFiles, layout: Layout, folder: Path, *, dtype: str | None, ema: bool
) -> Path:
    """A sensible name in `folder` for the converted model: what it is made from, and what was changed."""
    stem = "-".join(
        [
            model.name,
            *(["ema"] if ema else []),
            *(change.name for change in model.changes),
            *([dtype] if dtype else []),
        ]
    )
    suffix = SUFFIX if layout == "ldm" else ""
    path = folder / f"{stem}{suffix}"
    return path if path.resolve() != model.path.resolve() else folder / f"{stem}-converted{suffix}"


def convert(
    model: ModelFiles,
    path: Path,
    layout: Layout,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    verify: bool = True,
    report: Report = lambda stage, done, total: None,
) -> Conversion:
    """Write `model` again.

    Args:
        path: the file (LDM layout; .safetensors, or .gguf) or folder (diffusers) to make.
        dtype: float32, bfloat16 or float16; int8 or q8_0, in which matrices and kernels are (`eight_bits`),
            while all else keeps its own; None keeps every weight's own.
        verify: read the result back, before it gets its name, and compare every tensor.

    Raises:
        UsageError: the name is taken, or no name for such a file.
        CheckpointError: a weight does not fit into the type asked for.
        TokenizerError: a folder is asked for, and there is no tokenizer to put in it.
        SdscratchError: no space is left, or the result is not what was written.
    """
    if layout == "ldm" and path.suffix not in (SUFFIX, GGUF):
        raise UsageError(f"{path} would be a {SUFFIX} file; give it that suffix, or convert --to diffusers")
    if layout == "diffusers" and dtype in KINDS:
        raise UsageError(f"diffusers' folders hold no {dtype}; write a {SUFFIX} file, or choose float16")
    in_gguf = layout == "ldm" and path.suffix == GGUF
    if in_gguf and dtype == "int8":
        raise UsageError(f"{GGUF} files hold no int8; choose q8_0, or write a {SUFFIX} file")
    not_finite: dict[str, None] = {}
    target = _model(model, layout, dtype, not_finite, in_gguf=in_gguf)
    _check_space(path, target.bytes)
    if layout == "ldm":
        with atomic_write(path, overwrite=overwrite) as file:
            write = write_gguf if in_gguf else write_safetensors
            entries = target.entries("ldm")
            write(file, entries, target.metadata(), lambda done: report("writing", done, target.bytes))
            file.flush()
            if verify:
                _compare(target, Path(file.name), report)
    else:
        with atomic_folder(path, overwrite=overwrite) as folder:
            write_folder(folder, target, lambda done: report("writing", done, target.bytes))
            if verify:
                _compare(target, folder, report)
    return Conversion(
        path,
        layout,
        len(target.dtypes),
        target.bytes,
        model.dropped,
        target.tokenizer is not None,
        verify,
        tuple(not_finite),
    )


def _model(
    model: ModelFiles,
    layout: Layout,
    dtype: str | None,
    not_finite: dict[str, None],
    *,
    in_gguf: bool = False,
) -> Model:
    """What is written; the names of tensors with NaN or infinity come into `not_finite` as they are read."""

    def kind(weight: Weight) -> str:
        own = UNPACKED.get(model.info(weight).dtype, model.info(weight).dtype)
        if dtype in KINDS:
            return ggml_type(weight) if in_gguf else dtype if is_quantised(weight) else own
        return DTYPES[dtype] if dtype else own

    dtypes = {weight: kind(weight) for weight in model.stored}

    def read(weight: Weight) -> Tensor:
        tensor = model.read(weight)
        if not _is_finite(tensor):
            not_finite[model.stored[weight].name] = None
        cast = tensor.to(TORCH_NAMES.get(dtypes[weight], torch.float32))
        if dtypes[weight] not in TORCH_NAMES and not cast.isfinite().all():
            raise CheckpointError(
                f"{model.path} holds NaN or infinity in {model.where(weight).name}, which {dtype} cannot; "
                "choose bfloat16, or keep the types"
            )
        if cast.dtype != tensor.dtype and not torch.equal(cast.isfinite(), tensor.isfinite()):
            name = str(cast.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{model.path} holds values in {model.where(weight).name} that are too large for {name}; "
                "choose bfloat16, or keep the types"
            )
        return cast

    others = {key: text for key, text in model.metadata.items() if not key.startswith(OWN_METADATA)}
    return Model(
        model.config,
        dtypes,
        read,
        _tokenizer(model, layout),
        model.defaults,
        _provenance(model, dtype),
        others if model.layout == "ldm" else {},
    )


def _is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity; the sum, which they spoil, tells most sooner."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _tokenizer(model: ModelFiles, layout: Layout) -> Tokenizer | None:
    """The tokenizer to put into the result; other programs that read single files bring their own."""
    try:
        return model.tokenizer
    except TokenizerError as error:
        if layout == "diffusers" or model.given_tokenizer is not None:
            raise
        log.warning("the result will need --tokenizer: %s", error)
        return None


def _provenance(model: ModelFiles, dtype: str | None) -> dict[str, Any]:
    """Where the result comes from; no dates and no paths, so that the same input gives the same file."""
    record: dict[str, Any] = {
        "made_by": f"sdscratch {__version__} convert-weights",
        "source": model.path.name,
        "source_hash": model.hash(),
        "source_layout": model.layout,
        "ema": model.ema,
        "dtype": dtype or "kept",
    }
    for change in model.changes:
        record.setdefault(change.what, []).append(change.record())
    if model.exchanged:
        paths = list(dict.fromkeys(stored.file.path for stored in model.exchanged.values()))
        record["vae"] = {"name": paths[0].name, "hash": hash_files(paths)}
    if PROVENANCE in model.metadata:
        record["source_provenance"] = model.metadata[PROVENANCE]
    return record


def _check_space(path: Path, needed: int) -> None:
    """Say at once what would otherwise be found out after minutes."""
    existing = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    if existing is not None and (free := shutil.disk_usage(existing).free) < needed:
        raise SdscratchError(
            f"cannot write {path}: it takes {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB left; "
            "free some, or choose another place"
        )


def _compare(target: Model, written: Path, report: Report) -> None:
    """Open the result as anyone would, and compare it with what should be in it, bit by bit."""
    result = open_model(written)
    same = (result.config, result.defaults) == (target.config, target.defaults)
    done = 0
    for weight in target.dtypes:
        wanted, found = _as_stored(target.read(weight), target.dtypes[weight]), result.read(weight)
        same = same and wanted.dtype == found.dtype and torch.equal(_bits(wanted), _bits(found))
        if not same:
            raise SdscratchError(f"what was written differs from its source in {weight.ldm}; check the disk")
        done += wanted.numel() * wanted.element_size()
        report("verifying", done, target.bytes)


def _as_stored(tensor: Tensor, dtype: str) -> Tensor:
    """What a file of that type will say that a weight is."""
    if dtype in BLOCKS:
        return dequantised(quantised_q8_0(tensor), dtype, tuple(tensor.shape))
    return widened(*eight_bits(tensor, dtype)) if dtype in KINDS else tensor


def _bits(tensor: Tensor) -> Tensor:
    """The bytes, so that NaN equals itself and 0 is not −0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
