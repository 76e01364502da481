"""A model's networks on a device: loaded when first needed, and never trusted with NaN."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.device import Placement, out_of_memory_explained
from sdscratch.errors import SdscratchError
from sdscratch.models.inference import prepare

__all__ = ["Networks", "NotFiniteError", "dtype_of"]

log = logging.getLogger(__name__)

PART_NAMES: dict[Part, str] = {
    "text": "text encoder",
    "unet": "U-Net",
    "encoder": "picture encoder",
    "decoder": "picture decoder",
}

LORA_PARTS: tuple[Part, ...] = ("text", "unet")


class NotFiniteError(SdscratchError):
    """A network gave NaN or infinity."""

    def __init__(self, part: Part, dtype: torch.dtype) -> None:
        exact = dtype == torch.float32
        hint = "; the checkpoint is damaged, or not made for these options" if exact else ""
        name = str(dtype).removeprefix("torch.")
        super().__init__(f"the {PART_NAMES[part]} gave NaN or infinity in {name}{hint}")
        self.part = part
        self.final = exact  # no precision is left to try


class Networks:
    """The four networks by name. One that fails in 16 bits is loaded again in float32, to stay."""

    def __init__(self, files: ModelFiles, placement: Placement) -> None:
        self.files = files
        self.placement = placement
        self._loaded: dict[Part, nn.Module] = {}

    def __getitem__(self, part: Part) -> Any:
        """A network, loaded now if it was not before.

        Raises:
            DeviceError: out of memory.
        """
        if part not in self._loaded:
            self._load(part, self.placement.dtype)
        return self._loaded[part]

    def _load(self, part: Part, dtype: torch.dtype) -> None:
        with out_of_memory_explained():
            network = self.files.load(part, self.placement.device, dtype)
            # convolutions are fastest with a position's channels side by side
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._loaded[part] = prepare(network)

    def run(self, part: Part, compute: Callable[[Any], Tensor]) -> Tensor:
        """compute(network) as float32; if that is not finite, once more with the network in float32.

        Raises:
            NotFiniteError: not finite in float32 either.
            DeviceError: out of memory.
        """
        with torch.inference_mode(), out_of_memory_explained():
            result = compute(self[part]).float()
            if not torch.isfinite(result).all():
                self.fall_back(self.not_finite(part))
                result = compute(self[part]).float()
                if not torch.isfinite(result).all():
                    raise self.not_finite(part)
            return result

    def not_finite(self, part: Part) -> NotFiniteError:
        """The error that says that a network, as it is loaded now, gave NaN."""
        return NotFiniteError(part, dtype_of(self[part]))

    def fall_back(self, error: NotFiniteError) -> None:
        """Load the network that failed again in float32, to stay.

        Raises:
            NotFiniteError: the very error, where the network is in float32 already.
        """
        if error.final:
            raise error
        log.warning("%s; trying again in float32", error)
        del self._loaded[error.part]
        self._load(error.part, torch.float32)

    def exchange(self, files: ModelFiles) -> None:
        """Go on with other LoRAs on the same model; what they can change is loaded again when needed."""
        self.files = files
        for part in LORA_PARTS:
            self._loaded.pop(part, None)

    def clear(self) -> None:
        """Free the memory of all of them."""
        self._loaded.clear()


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of a network's weights."""
    return next(network.parameters()).dtype
