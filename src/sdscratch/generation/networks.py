"""A model's networks on a device: loaded when needed, let go where that pays, never trusted with NaN."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.device import Placement, out_of_memory_explained
from sdscratch.errors import SdscratchError
from sdscratch.models.inference import prepare

__all__ = ["Networks", "NotFiniteError", "dtype_of", "trim"]

log = logging.getLogger(__name__)

PART_NAMES: dict[Part, str] = {
    "text": "text encoder",
    "unet": "U-Net",
    "encoder": "picture encoder",
    "decoder": "picture decoder",
}

LORA_PARTS: tuple[Part, ...] = ("text", "unet")

# A network of more bytes is let go on a CPU when its work is done: loading Stable Diffusion's text encoder
# again for the next prompt takes 0.3 s of a picture's minute, and it is a tenth of all memory.
WORTH_LETTING_GO = 50 * 10**6


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
    """The four networks by name. One that fails in 16 bits is loaded again in float32, to stay.

    Args:
        low_memory: hold one network at a time, the newest.
    """

    def __init__(self, files: ModelFiles, placement: Placement, low_memory: bool = False) -> None:
        self.files = files
        self.placement = placement
        self.low_memory = low_memory
        self._loaded: dict[Part, nn.Module] = {}
        self._dtypes: dict[Part, torch.dtype] = {}  # of those that need another than the placement's

    def __getitem__(self, part: Part) -> Any:
        """A network, loaded now if it was not before.

        Raises:
            DeviceError: out of memory.
        """
        if part not in self._loaded:
            self._load(part)
        return self._loaded[part]

    def _load(self, part: Part) -> None:
        if self.low_memory:
            self._let_go(*self._loaded)
        dtype = self._dtypes.get(part, self.placement.dtype)
        with out_of_memory_explained():
            network = self.files.load(part, self.placement.device, dtype)
            self._loaded[part] = prepare(network, lambda: trim(self.placement.device))

    def done(self, part: Part) -> None:
        """Say that a network may not be needed again: it is let go where memory counts more than loading."""
        if part not in self._loaded:
            return
        size = sum(weight.nbytes for weight in self._loaded[part].parameters())
        if self.low_memory or (self.placement.device.type == "cpu" and size > WORTH_LETTING_GO):
            self._let_go(part)

    def _let_go(self, *parts: Part) -> None:
        for part in parts:
            del self._loaded[part]
        trim(self.placement.device)

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
        self._dtypes[error.part] = torch.float32
        self._loaded.pop(error.part, None)
        self._load(error.part)

    def exchange(self, files: ModelFiles) -> None:
        """Go on with other LoRAs on the same model; what they can change is loaded again when needed."""
        self.files = files
        for part in LORA_PARTS:
            self._loaded.pop(part, None)
            self._dtypes.pop(part, None)

    def clear(self) -> None:
        """Free the memory of all of them."""
        self._loaded.clear()


def trim(device: torch.device) -> None:
    """Give memory that is free now back to the system; allocators would keep it for themselves."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if release is not None:
            release(0)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of a network's weights."""
    return next(network.parameters()).dtype
