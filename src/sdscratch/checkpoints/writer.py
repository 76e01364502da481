"""Models as files: one safetensors file in LDM layout, or a diffusers folder; streamed, complete or absent.

A safetensors file begins with a header that tells every tensor's place, so all places are known before the
first tensor is read: tensors then pass through one by one, and a model of any size is written in the memory
of its largest tensor.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sdscratch.checkpoints.eight_bits import KINDS, eight_bits, scales_of
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import Part, Shape, Weight, joined, weights
from sdscratch.checkpoints.model import CONFIG, DEFAULTS
from sdscratch.checkpoints.names import Layout
from sdscratch.checkpoints.tokenizers import TOKENIZER
from sdscratch.errors import UsageError
from sdscratch.files import atomic_write, refuse_existing, write_error
from sdscratch.models.config import ModelConfig
from sdscratch.options import Defaults
from sdscratch.tensorfiles.header import BLOCKS, DTYPES, TensorInfo
from sdscratch.tensorfiles.quantised import quantised_q8_0
from sdscratch.tensorfiles.scales import SCALES, SUFFIX
from sdscratch.text.tokenizer import Tokenizer

__all__ = [
    "PROVENANCE",
    "Entry",
    "Model",
    "Report",
    "save_model",
    "write_folder",
    "write_safetensors",
    "write_single",
]

PROVENANCE = "sdscratch.provenance"  # beside the keys of `model` and `tokenizers` in a single file's metadata

Report = Callable[[int], None]  # is told how many bytes of tensors are written so far

TORCH_NAMES = {name: getattr(torch, torch_name) for name, (_, torch_name) in DTYPES.items()}
SAFETENSORS_NAMES = {dtype: name for name, dtype in TORCH_NAMES.items()}
WEIGHTS_FILES = {
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; it is read only when its turn comes."""

    name: str
    dtype: str  # as safetensors calls it
    shape: Shape
    read: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """How many bytes it takes in the file."""
        return TensorInfo(self.dtype, self.shape).bytes


@dataclass(frozen=True)
class Model:
    """Everything that is written of a model; `read` gives a weight in our shape, in any type."""

    config: ModelConfig
    dtypes: Mapping[Weight, str]  # as safetensors calls them, or one of `eight_bits.KINDS`, or ggml's Q8_0
    read: Callable[[Weight], Tensor]
    tokenizer: Tokenizer | None
    defaults: Defaults
    provenance: Mapping[str, Any]
    other_metadata: Mapping[str, str]

    @cached_property
    def bytes(self) -> int:
        """How many bytes the weights take."""
        return sum(entry.bytes for entry in self.entries("ldm"))

    def entries(self, layout: Layout) -> list[Entry]:
        """Every tensor of a file in that layout; a tensor may be several weights."""
        sharing: dict[str, list[Weight]] = {}
        for weight in self.dtypes:
            sharing.setdefault(weight.stored(layout)[0], []).append(weight)
        return [entry for together in sharing.values() for entry in self._entries(together, layout)]

    def _entries(self, together: Sequence[Weight], layout: Layout) -> list[Entry]:
        (name, shape), dtype = together[0].stored(layout), self.dtypes[together[0]]

        def read() -> Tensor:
            return joined({weight: self.read(weight) for weight in together}, layout)

        if dtype in BLOCKS:
            return [Entry(name, dtype, shape, lambda: quantised_q8_0(read()))]
        if dtype not in KINDS:
            return [Entry(name, dtype, shape, read)]
        beside = scales_of(shape, dtype)
        scales = Entry(name + SUFFIX, beside.dtype, beside.shape, lambda: eight_bits(read(), dtype)[1])
        return [scales, Entry(name, "I8", shape, lambda: eight_bits(read(), dtype)[0])]

    def metadata(self) -> dict[str, str]:
        """What makes a single file one model, after what others wrote about it."""
        own = {
            CONFIG: self.config.to_json(),
            DEFAULTS: json.dumps(asdict(self.defaults)),
            PROVENANCE: json.dumps(self.provenance, sort_keys=True),
        }
        if self.tokenizer is not None:
            own[TOKENIZER] = self.tokenizer.to_json()
        if any(dtype in KINDS for dtype in self.dtypes.values()):
            own[SCALES] = SUFFIX
        return {"format": "pt"} | dict(self.other_metadata) | own


def write_safetensors(
    file: BinaryIO, entries: Sequence[Entry], metadata: Mapping[str, str], report: Report
) -> None:
    """Write a safetensors file; larger elements first, so that every tensor is aligned to its own."""
    ordered = sorted(entries, key=lambda entry: -DTYPES[entry.dtype][0])
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for entry in ordered:
        start, end = end, end + entry.bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    written = 0
    for entry in ordered:
        tensor = entry.read().to(TORCH_NAMES[entry.dtype]).contiguous()
        file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        written += entry.bytes
        report(written)


def write_single(file: BinaryIO, model: Model, report: Report) -> None:
    """A model as one file in LDM layout.

    It holds the weights and nothing else, as the files that diffusers' own conversion makes: the schedule's
    buffers and the position ids of CompVis' files are computed by every program that loads them.
    """
    write_safetensors(file, model.entries("ldm"), model.metadata(), report)


def write_folder(folder: Path, model: Model, report: Report) -> None:
    """A model as a diffusers folder, in a folder that exists and is empty.

    Its defaults and provenance ride in the U-Net's metadata, so that they survive the way there and back.
    """
    records = to_folder(model.config, model.defaults.width)
    texts = {name: json.dumps(record, indent=2) for name, record in records.items()}
    if model.tokenizer is not None:
        texts |= {f"tokenizer/{name}": text for name, text in model.tokenizer.to_files().items()}
    for name, text in texts.items():
        with _new_file(folder / name) as file:
            file.write(text.encode())
    done = 0
    for component, name in WEIGHTS_FILES.items():
        prefix = f"{component}/"
        entries = [
            replace(entry, name=entry.name.removeprefix(prefix))
            for entry in model.entries("diffusers")
            if entry.name.startswith(prefix)
        ]
        if not entries:
            continue
        kept = ("format", DEFAULTS, PROVENANCE) if component == "unet" else ("format",)
        metadata = {key: value for key, value in model.metadata().items() if key in kept}
        with _new_file(folder / name) as file:
            write_safetensors(file, entries, metadata, _beyond(done, report))
        done += sum(entry.bytes for entry in entries)


def _beyond(done: int, report: Report) -> Report:
    return lambda written: report(done + written)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder that has its name only once it is complete.

    Raises:
        UsageError: the name is taken and `overwrite` is not set, or what has it is no diffusers folder.
        SdscratchError: the operating system refuses (no space, no permission, …), with the reason in words.
    """
    if not overwrite:
        refuse_existing(path)
    elif path.exists() and not (path / "model_index.json").is_file():
        raise UsageError(f"{path} is no diffusers folder, so it is not replaced; choose another name")
    temporary, old = (
        path.absolute().parent / f".sdscratch-{secrets.token_hex(8)}.{end}" for end in ("part", "old")
    )
    try:
        temporary.mkdir()
        yield temporary
        _replace_folder(temporary, path, old)
    except OSError as error:
        # An error about some other file (one that the caller reads from) is not ours to explain.
        if (
            error.filename is not None
            and Path(error.filename) != path
            and temporary.name not in str(error.filename)
        ):
            raise
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path, old: Path) -> None:
    """Give `new` the name `path`; what had that name is moved aside first, and back if anything fails."""
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_model(
    path: Path,
    config: ModelConfig,
    parts: Mapping[Part, Mapping[str, Tensor]],
    *,
    tokenizer: Tokenizer | None,
    defaults: Defaults,
    provenance: Mapping[str, Any],
    dtype: torch.dtype,
    overwrite: bool = False,
) -> None:
    """Write networks from memory as one self-contained file in LDM layout: how training ends.

    Args:
        parts: each part's `state_dict`.
        provenance: where the model comes from, as JSON takes it.
        dtype: what the weights are written in.

    Raises:
        UsageError: the name is taken and `overwrite` is not set.
        SdscratchError: the operating system refuses.
    """
    dtypes = dict.fromkeys(weights(config), SAFETENSORS_NAMES[dtype])

    def read(weight: Weight) -> Tensor:
        return parts[weight.part][weight.name].detach().cpu()

    model = Model(config, dtypes, read, tokenizer, defaults, provenance, {})
    with atomic_write(path, overwrite=overwrite) as file:
        write_single(file, model, lambda _: None)
