"""Tiny decoders as files: TAESD's names, which number the layers, with or without a prefix, and diffusers'.

torch is imported by `TaesdFile.load` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.checkpoints.places import find_local
from sdscratch.checkpoints.source import is_tiny
from sdscratch.errors import CheckpointError
from sdscratch.models.config import AutoencoderConfig, TinyDecoderConfig
from sdscratch.show import printable
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    import torch

    from sdscratch.models.taesd import TinyDecoder

__all__ = [
    "TaesdFile",
    "check_latents",
    "find_taesd",
    "find_tiny",
    "open_taesd",
    "taesd_beside",
    "tensor_names",
]

# Prefixes of a decoder's names, and how far its numbers are from TAESD's: diffusers does not count the first
# layer, which only bounds latents. An encoder's names never count.
PREFIXES = (("decoder.layers.", 1), ("taesd_decoder.", 0), ("decoder.", 0), ("", 0))
IN_FOLDER = "diffusion_pytorch_model.safetensors"  # of diffusers
FIRST = 1  # the number of the first convolution
BLOCK = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4"}


def layers(blocks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """A decoder's layers: our name of each, and TAESD's."""
    yield "conv_in", f"{FIRST}"
    number = FIRST + 2  # an activation stands between
    for level, count in enumerate(blocks):
        for block in range(count):
            for ours, theirs in BLOCK.items():
                yield f"levels.{level}.{block}.{ours}", f"{number}.{theirs}"
            number += 1
        if level < len(blocks) - 1:
            yield f"up.{level}", f"{number + 1}"  # after the repeating of positions
            number += 2
    yield "conv_out", f"{number}"


def tensor_names(blocks: tuple[int, ...]) -> dict[str, str]:
    """A decoder's tensors: our name of each, and TAESD's."""
    return {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in layers(blocks)
        for kind in ("weight", "bias")
        if not (ours.startswith("up.") and kind == "bias")
    }


@dataclass(frozen=True)
class TaesdFile:
    """A tiny decoder of which nothing is in memory yet."""

    path: Path
    config: TinyDecoderConfig
    file: TensorFile
    stored: Mapping[str, str]  # our name of each tensor, and the file's
    title: str = "tiny decoder"
    small: bool = True  # 5 MB: it may stand beside any other network

    def load(self, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
        """The network, ready to run."""
        from sdscratch.checkpoints.empty import empty, placed
        from sdscratch.models.taesd import TinyDecoder

        network = empty(lambda: TinyDecoder(self.config))
        state = {name: placed(self.file.read(stored), device, dtype) for name, stored in self.stored.items()}
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)


def taesd_beside(model: Path) -> Path:
    """Where a model's own tiny decoder lies: MODEL-taesd.safetensors."""
    return model.with_name(f"{model.stem}-taesd.safetensors")


def find_taesd(model: Path, autoencoder: AutoencoderConfig) -> TaesdFile | None:
    """The tiny decoder beside a model, or in its folder in the place of a VAE, if there is one.

    Raises:
        CheckpointError: as `open_taesd`.
    """
    path = taesd_beside(model)
    if is_tiny(model / "vae/config.json"):
        return open_taesd(str(model / "vae"), autoencoder)
    return open_taesd(str(path), autoencoder) if path.is_file() else None


def open_taesd(name: str, autoencoder: AutoencoderConfig) -> TaesdFile:
    """Open a tiny decoder that is to stand for a model's own.

    Args:
        name: a file, a diffusers folder, or a name that is looked up as a model's.
        autoencoder: the model's.

    Raises:
        CheckpointError: missing, unreadable, no tiny decoder, or one for another kind of latents.
    """
    path = find_tiny(name)
    file = open_tensors(path)
    prefix, shift = next(
        ((prefix, shift) for prefix, shift in PREFIXES if f"{prefix}{FIRST - shift}.weight" in file.tensors),
        ("", 0),
    )
    config = _shape(path, file, prefix, shift)

    def stored(theirs: str) -> str:
        number, rest = theirs.split(".", 1)
        return f"{prefix}{int(number) - shift}.{rest}"

    found = {ours: stored(theirs) for ours, theirs in tensor_names(config.blocks).items()}
    _check(path, file, config, found)
    check_latents(path, config, autoencoder)
    return TaesdFile(path, config, file, found)


def find_tiny(name: str) -> Path:
    """The file of a tiny autoencoder: as it is named, in a diffusers folder, or looked up as a model's.

    Raises:
        CheckpointError: there is none.
    """
    path = find_local(name)
    if path is not None and path.is_dir():
        path /= IN_FOLDER
    if path is None or not path.is_file():
        where = name if path is None else str(path)
        raise CheckpointError(
            f"there is no tiny autoencoder {printable(where)}: no such file; check the name"
        )
    return path


def check_latents(path: Path, config: TinyDecoderConfig, autoencoder: AutoencoderConfig) -> None:
    """
    Raises:
        CheckpointError: it is made for other latents than the model's.
    """
    if (config.latent_channels, config.downscale) != (autoencoder.latent_channels, autoencoder.downscale):
        raise CheckpointError(
            f"{path} is for latents of {config.latent_channels} channels and {config.downscale}×"
            f"{config.downscale} pixels a position, but the model's have {autoencoder.latent_channels} and "
            f"{autoencoder.downscale}×{autoencoder.downscale}; take one that is made for this model"
        )


def _shape(path: Path, file: TensorFile, prefix: str, shift: int) -> TinyDecoderConfig:
    """What the numbers of the layers say: blocks in a row, and single convolutions between them."""
    pattern = re.compile(re.escape(prefix) + r"(\d{1,3})\.(conv\.0\.)?weight")
    matches = [match for match in map(pattern.fullmatch, file.tensors) if match]
    kinds = {int(match[1]) + shift: bool(match[2]) for match in matches}
    first = file.tensors.get(f"{prefix}{FIRST - shift}.weight")
    blocks = [0]
    for number in sorted(kinds.keys() - {FIRST})[:-1]:  # the last one is the convolution to pixels
        if kinds[number]:
            blocks[-1] += 1
        else:
            blocks.append(0)
    if first is None or len(first.shape) != 4 or 0 in first.shape or not any(blocks):
        raise CheckpointError(f"{path} holds no decoder of TAESD's; --taesd takes no other")
    return TinyDecoderConfig(first.shape[1], first.shape[0], tuple(blocks))


def _check(path: Path, file: TensorFile, config: TinyDecoderConfig, found: Mapping[str, str]) -> None:
    """Every tensor is there and has its shape."""
    width = config.channels
    for ours, stored in found.items():
        outputs = 3 if ours.startswith("conv_out") else width
        inputs = config.latent_channels if ours.startswith("conv_in") else width
        shape = (outputs,) if ours.endswith("bias") else (outputs, inputs, 3, 3)
        if stored not in file.tensors or file.tensors[stored].shape != shape:
            raise CheckpointError(
                f"{path} is no whole decoder of TAESD's: {stored} is missing or of another shape"
            )
