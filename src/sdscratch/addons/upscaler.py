"""Upscalers as files: ESRGAN's family, told apart by their tensors' names; their shape by their tensors'.

torch is imported by `UpscalerFile.load` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts.esrgan import LAYOUTS, shapes, upscaler_names
from sdscratch.checkpoints.places import find_upscaler
from sdscratch.errors import CheckpointError
from sdscratch.models.config import CompactConfig, RRDBConfig, UpscalerConfig
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.identify import Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["UpscalerFile", "open_upscaler", "read_upscaler"]

PREFIXES = ("params_ema.", "params.", "")  # averaged weights first, as Real-ESRGAN's own program takes them
# What each generation calls its first tensor of the first dense block.
FIRST = {
    "Real-ESRGAN": "body.0.rdb1.conv1.weight",
    "BSRGAN": "RRDB_trunk.0.RDB1.conv1.weight",
    "ESRGAN": "model.1.sub.0.RDB1.conv1.0.weight",
}
MOST = 64  # of a picture's scale: what is more, no network was made for


@dataclass(frozen=True)
class UpscalerFile:
    """An upscaler of which nothing is in memory yet."""

    path: Path
    family: str  # Real-ESRGAN, BSRGAN, ESRGAN or compact
    config: UpscalerConfig
    file: TensorFile
    stored: Mapping[str, str]  # our name of each tensor, and the file's
    title: str = "upscaler"
    small: bool = False

    @property
    def name(self) -> str:
        """What records call it."""
        return self.path.stem

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of the file the first time."""
        return hash_files([self.path])

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run."""
        from sdscratch.checkpoints.empty import empty, placed
        from sdscratch.models.esrgan import upscaler_of

        network = empty(lambda: upscaler_of(self.config))
        state = {name: placed(self.file.read(stored), device, dtype) for name, stored in self.stored.items()}
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)


def open_upscaler(name: str) -> UpscalerFile:
    """Find and open an upscaler: a file, or a name in ./upscalers or the user's upscalers.

    Raises:
        CheckpointError: missing, unreadable, or of another family; names what it is.
    """
    path = find_upscaler(name)
    return read_upscaler(path, open_tensors(path))


def read_upscaler(path: Path, file: TensorFile) -> UpscalerFile:
    """An upscaler's file, checked whole: every tensor is there in its shape, and nothing unknown is.

    Raises:
        CheckpointError: it is none.
    """
    prefix = next(each for each in PREFIXES if any(name.startswith(each) for name in file.tensors))
    found = {
        name.removeprefix(prefix): info.shape
        for name, info in file.tensors.items()
        if name.startswith(prefix)
    }
    family, config = _shape(path, found)
    if config.inputs != 3 or getattr(config, "outputs", 3) != 3:
        raise CheckpointError(
            f"{printable(path)} is an upscaler for pictures of {config.inputs} channels; take one for RGB"
        )
    names = upscaler_names(config, family)
    wanted = shapes(config)
    for ours, theirs in names.items():
        if found.get(theirs) != wanted[ours]:
            there = f"{list(found[theirs])}, not {list(wanted[ours])}" if theirs in found else "missing"
            raise CheckpointError(
                f"{printable(path)} is no whole upscaler of {family}'s: {theirs} is {there}"
            )
    unknown = found.keys() - set(names.values())
    if unknown:
        raise CheckpointError(
            f"{printable(path)} holds {listed(sorted(unknown))}, which no upscaler of {family}'s has: "
            "it is one of another make, which this program does not know"
        )
    return UpscalerFile(path, family, config, file, {ours: prefix + theirs for ours, theirs in names.items()})


def _shape(path: Path, found: Mapping[str, tuple[int, ...]]) -> tuple[str, UpscalerConfig]:
    """Which generation of names it is in, and the network's shape."""
    family = next((each for each, name in FIRST.items() if name in found), None)
    try:
        if family is not None:
            return family, _rrdb(found, family)
        if {"body.0.weight", "body.1.weight"} <= found.keys() and len(found["body.1.weight"]) == 1:
            return "compact", _compact(found)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{printable(path)} is a damaged upscaler: {printable(error)}") from None
    identity = identify(found)
    what = "it holds no network that is known here" if identity.kind is Kind.UNKNOWN else f"it is {identity}"
    raise CheckpointError(
        f"{printable(path)} is no upscaler of the ESRGAN family (ESRGAN, BSRGAN, Real-ESRGAN, its compact "
        f"network): {what}"
    )


def _rrdb(found: Mapping[str, tuple[int, ...]], family: str) -> RRDBConfig:
    """Counts follow from numbers in names, widths from shapes."""
    sequence = family == "ESRGAN"
    assert family in LAYOUTS
    blocks = 1 + max(_numbers(found, r"(?:body|RRDB_trunk|model\.1\.sub)\.(\d+)\.(?:rdb|RDB)"))
    last = max(_numbers(found, r"model\.(\d+)\.")) if sequence else 0
    if sequence:
        upsamplings, rest = divmod(last - 4, 3)
        if rest or upsamplings < 0:
            raise ValueError(f"its sequence ends with layer {last}")
    else:
        upsamplings = max((*_numbers(found, r"(?:conv_up|upconv)(\d+)\."), 0))
    ends = (f"model.{last}", "model.0") if sequence else ("conv_last", "conv_first")
    channels, folded = found[f"{ends[1]}.weight"][:2]
    outputs = found[f"{ends[0]}.weight"][0]
    unshuffle = isqrt(folded // outputs) if folded in (4 * outputs, 16 * outputs) else 1
    if 1 << upsamplings < unshuffle or upsamplings > 6:
        raise ValueError(f"it would enlarge {2**upsamplings}/{unshuffle} times")
    growth = found[FIRST[family]][0]
    return RRDBConfig(folded // unshuffle**2, outputs, channels, growth, blocks, upsamplings, unshuffle)


def _compact(found: Mapping[str, tuple[int, ...]]) -> CompactConfig:
    last = max(_numbers(found, r"body\.(\d+)\."))
    channels, inputs = found["body.0.weight"][:2]
    scale = isqrt(found[f"body.{last}.weight"][0] // inputs)
    if not 1 <= scale <= MOST:
        raise ValueError(f"it would enlarge {scale} times")
    return CompactConfig(inputs, channels, last // 2 - 1, scale)


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    return [int(match[1]) for name in names if (match := re.match(pattern, name)) and len(match[1]) < 6]
