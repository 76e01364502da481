"""Tiny encoders as files: TAESD's names, which number the layers, with or without a prefix, and diffusers'.

A file may hold a decoder, too (`taesd`), or nothing else. torch is imported by `TinyEncoderFile.load` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.checkpoints.taesd import BLOCK, check_latents, find_tiny
from sdscratch.errors import CheckpointError
from sdscratch.models.config import AutoencoderConfig, TinyDecoderConfig
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    import torch

    from sdscratch.models.taesd import TinyEncoder

__all__ = ["TinyEncoderFile", "encoder_tensor_names", "holds_encoder", "open_tiny_encoder"]

# A decoder's names never count: bare, it begins with number 1.
PREFIXES = ("encoder.layers.", "taesd_encoder.", "encoder.", "")


def encoder_tensor_names(blocks: tuple[int, ...]) -> dict[str, str]:
    """An encoder's tensors: our name of each, and TAESD's.

    Args:
        blocks: at each resolution, the lowest first.
    """
    return {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in _layers(blocks)
        for kind in ("weight", "bias")
        if not (ours.startswith("down.") and kind == "bias")
    }


def _layers(blocks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    yield "conv_in", "0"
    number = 1
    for level, count in enumerate(reversed(blocks)):
        if level:
            yield f"down.{level - 1}", f"{number}"
            number += 1
        for block in range(count):
            yield from ((f"levels.{level}.{block}.{ours}", f"{number}.{end}") for ours, end in BLOCK.items())
            number += 1
    yield "conv_out", f"{number}"


@dataclass(frozen=True)
class TinyEncoderFile:
    """A tiny encoder of which nothing is in memory yet."""

    path: Path
    config: TinyDecoderConfig
    file: TensorFile
    stored: Mapping[str, str]  # our name of each tensor, and the file's
    title: str = "tiny encoder"
    small: bool = True  # 5 MB: it may stand beside any other network

    def load(self, device: torch.device, dtype: torch.dtype) -> TinyEncoder:
        """The network, ready to run."""
        from sdscratch.checkpoints.empty import empty, placed
        from sdscratch.models.taesd import TinyEncoder

        network = empty(lambda: TinyEncoder(self.config))
        state = {name: placed(self.file.read(stored), device, dtype) for name, stored in self.stored.items()}
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)


def holds_encoder(path: Path) -> bool:
    """Whether a file has an encoder's tensors, by their names.

    Raises:
        CheckpointError: unreadable, or no file of weights.
    """
    tensors = open_tensors(path).tensors
    return any(f"{prefix}0.weight" in tensors for prefix in PREFIXES)


def open_tiny_encoder(name: str, autoencoder: AutoencoderConfig) -> TinyEncoderFile:
    """Open a tiny encoder that is to stand for a model's own.

    Args:
        name: a file, a diffusers folder, or a name that is looked up as a model's.
        autoencoder: the model's.

    Raises:
        CheckpointError: missing, unreadable, no tiny encoder, or one for another kind of latents.
    """
    path = find_tiny(name)
    file = open_tensors(path)
    prefix = next((each for each in PREFIXES if f"{each}0.weight" in file.tensors), None)
    if prefix is None:
        raise CheckpointError(
            f"{path} holds no encoder of TAESD's; take a file that has both, or the model's own"
        )
    config = _shape(path, file, prefix)
    found = {ours: prefix + theirs for ours, theirs in encoder_tensor_names(config.blocks).items()}
    _check(path, file, config, found)
    check_latents(path, config, autoencoder)
    return TinyEncoderFile(path, config, file, found)


def _shape(path: Path, file: TensorFile, prefix: str) -> TinyDecoderConfig:
    """What the numbers of the layers say: blocks in a row, and single convolutions between them."""
    pattern = re.compile(re.escape(prefix) + r"(\d{1,3})\.(conv\.0\.)?weight")
    kinds = {int(match[1]): bool(match[2]) for match in map(pattern.fullmatch, file.tensors) if match}
    last = max(kinds)
    blocks = [0]
    for number in sorted(kinds.keys() - {0, last}):
        if kinds[number]:
            blocks[-1] += 1
        else:
            blocks.append(0)
    first, end = file.tensors[f"{prefix}0.weight"].shape, file.tensors.get(f"{prefix}{last}.weight")
    if len(first) != 4 or 0 in first or end is None or not end.shape or not any(blocks):
        raise CheckpointError(f"{path} holds no encoder of TAESD's")
    return TinyDecoderConfig(end.shape[0], first[0], tuple(reversed(blocks)))


def _check(path: Path, file: TensorFile, config: TinyDecoderConfig, found: Mapping[str, str]) -> None:
    """Every tensor is there and has its shape."""
    width = config.channels
    for ours, stored in found.items():
        outputs = config.latent_channels if ours.startswith("conv_out") else width
        inputs = 3 if ours.startswith("conv_in") else width
        shape = (outputs,) if ours.endswith("bias") else (outputs, inputs, 3, 3)
        if stored not in file.tensors or file.tensors[stored].shape != shape:
            raise CheckpointError(
                f"{path} is no whole encoder of TAESD's: {stored} is missing or of another shape"
            )
