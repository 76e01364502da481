"""Whatever loads as a network: a model's part, an autoencoder, a ControlNet, a tiny decoder (`NetworkFile`).

torch is imported by `load` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sdscratch.checkpoints.layouts import PART_TITLES, Part
from sdscratch.checkpoints.model import ModelFiles

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NetworkFile", "PartFile", "parts_of"]


class NetworkFile(Protocol):
    """A network of which nothing is in memory yet; its file has been opened and checked."""

    @property
    def title(self) -> str:
        """What messages call the network: "U-Net"."""
        ...

    @property
    def small(self) -> bool:
        """Whether it may stand beside another one even where only one is to be held at a time."""
        ...

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run: in eval mode, without gradients.

        Raises:
            CheckpointError: the file has changed since it was opened.
        """
        ...


@dataclass(frozen=True)
class PartFile:
    """One network of a model; of another model than the one drawn with, a swapped autoencoder."""

    files: ModelFiles
    part: Part
    small: bool = False

    @property
    def title(self) -> str:
        """What messages call it."""
        return PART_TITLES[self.part]

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run, with the LoRAs of its model."""
        return self.files.load(self.part, device, dtype)


def parts_of(files: ModelFiles) -> Mapping[str, NetworkFile]:
    """A model's networks by the names of its parts."""
    return {part: PartFile(files, part) for part in files.parts}
