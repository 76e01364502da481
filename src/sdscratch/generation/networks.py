"""All networks that draw, on a device: loaded when needed, let go where that pays, never trusted with NaN."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.network_file import NetworkFile, PartFile, parts_of
from sdscratch.device import Placement, out_of_memory_explained
from sdscratch.errors import SdscratchError
from sdscratch.fast.accelerate import accelerate
from sdscratch.fast.compute import Compute, Input, Outputs
from sdscratch.fast.prepare import prepare
from sdscratch.fast.seamless import make_seamless
from sdscratch.hardware import device_kind
from sdscratch.models.altered import Alteration
from sdscratch.models.unet import UNet

__all__ = ["Networks", "NotFiniteError", "dtype_of", "trim"]

log = logging.getLogger(__name__)

PLAIN = Alteration()

LAID_OUT_ANEW = ("cpu",)  # devices on which `fast.prepare` keeps weights in other forms

# A network of more bytes is let go on a CPU when its work is done: loading Stable Diffusion's text encoder
# again for the next prompt takes 0.3 s of a picture's minute, and it is a tenth of all memory.
WORTH_LETTING_GO = 50 * 10**6


class NotFiniteError(SdscratchError):
    """A network gave NaN or infinity.

    Args:
        part: the network's name in `Networks`.
        title: what the message calls it.
        integers: whether it has products of 8-bit integers.
    """

    def __init__(self, part: str, title: str, dtype: torch.dtype, *, integers: bool = False) -> None:
        exact = dtype == torch.float32 and not integers
        hint = "; the checkpoint is damaged, or not made for these options" if exact else ""
        name = "int8" if integers else str(dtype).removeprefix("torch.")
        super().__init__(f"the {title} gave NaN or infinity in {name}{hint}")
        self.part = part
        self.final = exact  # no precision is left to try


class Networks:
    """A model's networks by name, and whatever stands beside them or in their place.

    It alone loads them, counts them, lets them go, and records or compiles them. One that fails in 16 bits is
    loaded again in float32, to stay.

    Args:
        files: the model drawn with; its parts are "text", "unet", "encoder" and "decoder".
        low_memory: hold one network at a time, the newest, and small ones beside it.
    """

    def __init__(self, files: ModelFiles, placement: Placement, low_memory: bool = False) -> None:
        self.files = files
        self.placement = placement
        self.low_memory = low_memory
        self.seamless = ""  # the axes along which pictures tile
        self._attached: dict[str, NetworkFile] = {}
        self._varied: dict[str, PartFile] = {}  # parts of which some weights are others for a time
        self._loaded: dict[str, nn.Module] = {}
        self._together: frozenset[str] = frozenset()  # names that are held at once
        self._dtypes: dict[str, torch.dtype] = {}  # of those that need another than the placement's
        # what networks compute, recorded or compiled: by name, method, and what is done otherwise
        self._computations: dict[tuple[str, str, Alteration], Compute] = {}
        self._done: set[str] = set()  # let go because their work was done
        self.watch: Callable[[str, nn.Module], None] = unwatched  # told of every network once it is loaded

    # Files

    def file(self, name: str) -> NetworkFile:
        """What the network of this name is loaded from.

        Raises:
            KeyError: there is none of this name.
        """
        if name in self._varied:
            return self._varied[name]
        return self._attached[name] if name in self._attached else parts_of(self.files)[name]

    def attach(self, name: str, file: NetworkFile) -> None:
        """Give a network a name: of its own (a ControlNet), or a part's (a swapped autoencoder)."""
        if self._attached.get(name) is not file:
            self._forget(name)
            self._attached[name] = file

    def detach(self, name: str) -> None:
        """Take an attached network away; a part's name means the model's own again."""
        if name in self._attached:
            self._forget(name)
            del self._attached[name]

    def exchange(self, files: ModelFiles) -> None:
        """Go on with other LoRAs on the same model; what they can change is loaded again when needed."""
        self.files = files
        self._varied.clear()
        for name in ("text", "text2", "unet"):
            if name not in self._attached:
                self._forget(name)

    def varied(self, name: str) -> ModelFiles | None:
        """The model as a part of it is for a time; None where it is the one drawn with."""
        return self._varied[name].files if name in self._varied else None

    def vary(self, name: str, file: PartFile | None, weights: Collection[Weight]) -> None:
        """Go on with other values of some of a part's weights, in the precision that it has.

        Where the network's weights are still those that were loaded (a GPU's), they are exchanged in their
        places, so that what was recorded or compiled of it holds. Elsewhere they lie in other forms
        (`fast.prepare`), and the network is loaded anew: never are two of it in memory.

        Args:
            file: what has the other values; None: the model drawn with has.
            weights: those that differ.

        Raises:
            CheckpointError, DeviceError: as of loading.
        """
        if file is None:
            self._varied.pop(name, None)
        else:
            self._varied[name] = file
        if name not in self._loaded:
            return
        files = self.files if file is None else file.files
        if not exchanged(self._loaded[name], files, weights):
            self._let_go(name)

    def _forget(self, name: str) -> None:
        """Nothing that is known of a network of this name holds any longer."""
        self._dtypes.pop(name, None)
        self._done.discard(name)
        if name in self._loaded:
            self._let_go(name)

    # Networks in memory

    def __getitem__(self, name: str) -> Any:
        """A network, loaded now if it was not before.

        Raises:
            DeviceError: out of memory.
        """
        if name not in self._loaded:
            self._load(name)
        return self._loaded[name]

    def load_ahead(self, name: str) -> None:
        """Load a network before it is needed; but not one whose work was done: what it gave may be known.

        Raises:
            DeviceError: out of memory.
        """
        if name not in self._done and not self.low_memory:
            _ = self[name]

    def together(self, *names: str) -> list[Any]:
        """Networks that compute together, as a U-Net and its ControlNets: even `low_memory` holds them all.

        Raises:
            DeviceError: out of memory.
        """
        self._together = frozenset(names)
        return [self[name] for name in names]

    def precision(self, name: str) -> torch.dtype:
        """In which precision a network is loaded, now or when it is needed."""
        return self._dtypes.get(name, self.placement.dtype)

    def in_precision(self, name: str, dtype: torch.dtype) -> None:
        """Have a network in this precision from now on, as the one that it computes with."""
        if self.precision(name) != dtype:
            self._forget(name)
            self._dtypes[name] = dtype

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of the weights of what is loaded, by name."""
        return {name: size_of(network) for name, network in self._loaded.items()}

    def _load(self, name: str) -> None:
        file = self.file(name)
        self._done.discard(name)
        if self.low_memory and not file.small:
            self._let_go(*(other for other in self._loaded if not self._may_stand_beside(other, name)))
        dtype = self._dtypes.get(name, self.placement.dtype)
        with out_of_memory_explained():
            network = file.load(self.placement.device, dtype)
            freed, integers = lambda: trim(self.placement.device), self._takes_integers(name)
            network = self._loaded[name] = prepare(network, freed, integers=integers)
            make_seamless(network, self.seamless)
        self.watch(name, network)

    def _takes_integers(self, name: str) -> bool:
        """Whether a network has products of 8-bit integers: not once it has failed in them."""
        return self.placement.integers and name not in self._dtypes

    def wrap(self, axes: str) -> None:
        """Let pictures tile along these axes ("", "x", "y", "xy"): those who compute now, and who will."""
        if axes != self.seamless:
            self.seamless = axes
            self._computations.clear()  # what was recorded or compiled has other edges
            for network in self._loaded.values():
                make_seamless(network, axes)

    def _may_stand_beside(self, other: str, name: str) -> bool:
        return self.file(other).small or {other, name} <= self._together

    def done(self, name: str) -> None:
        """Say that a network may not be needed again: it is let go where memory counts more than loading."""
        if name not in self._loaded:
            return
        large = size_of(self._loaded[name]) > WORTH_LETTING_GO
        if self.low_memory or (device_kind(self.placement.device) == "cpu" and large):
            self._let_go(name)
            self._done.add(name)

    def _let_go(self, *names: str) -> None:
        """Free networks, with what was recorded or compiled of them or of what computes with them."""
        for name in names:
            del self._loaded[name]
            gone = {name} | (self._together if name in self._together else set())
            for key in [key for key in self._computations if key[0] in gone]:
                del self._computations[key]
        trim(self.placement.device)

    def clear(self) -> None:
        """Free the memory of all of them."""
        self._computations.clear()
        self._loaded.clear()
        self._done.clear()

    # What they compute

    def computation(self, name: str, method: str = "forward", alteration: Alteration = PLAIN) -> Compute:
        """A network as this device runs it best: recorded or compiled, where that is faster.

        Args:
            method: which of the network's; it gives one tensor, or several.
            alteration: what a U-Net does otherwise, with the very weights.
        """
        key, network = (name, method, alteration), self[name]
        if key in self._computations:
            return self._computations[key]
        network = network if alteration == PLAIN else alteration.of(network)
        called = network if method == "forward" else getattr(network, method)

        def compute(*inputs: Input) -> Outputs:
            result = called(*inputs)
            return result if isinstance(result, tuple) else (result,)

        if self.placement.accelerates:
            config = network.config if isinstance(network, UNet) else None
            compute = accelerate(compute, self.placement, config)
        self._computations[key] = compute
        return compute

    def run(self, name: str, compute: Callable[[Any], Tensor]) -> Tensor:
        """compute(network) as float32; if that is not finite, once more with the network in float32.

        Raises:
            NotFiniteError: not finite in float32 either.
            DeviceError: out of memory.
        """
        with torch.inference_mode(), out_of_memory_explained():
            result = compute(self[name]).float()
            if not torch.isfinite(result).all():
                self.fall_back(self.not_finite(name))
                result = compute(self[name]).float()
                if not torch.isfinite(result).all():
                    raise self.not_finite(name)
            return result

    def not_finite(self, name: str) -> NotFiniteError:
        """The error that says that a network, as it is loaded now, gave NaN."""
        title, dtype = self.file(name).title, dtype_of(self[name])
        return NotFiniteError(name, title, dtype, integers=self._takes_integers(name))

    def fall_back(self, error: NotFiniteError) -> None:
        """Load the network that failed again in float32, to stay.

        Raises:
            NotFiniteError: the very error, where the network is in float32 already.
        """
        if error.final:
            raise error
        log.warning("%s; trying again in float32", error)
        self._forget(error.part)
        self._dtypes[error.part] = torch.float32
        self._load(error.part)


def unwatched(name: str, network: nn.Module) -> None:
    """Where nobody wants to look at networks."""


def exchanged(network: nn.Module, files: ModelFiles, weights: Collection[Weight]) -> bool:
    """Put other values in the places of some weights, if all of these are still the network's own.

    Returns:
        Whether they were; if not, nothing has changed.
    """
    own = dict(network.named_parameters())
    pairs = [(own[weight.name], weight) for weight in weights if weight.name in own]
    if len(pairs) < len(weights):
        return False
    if any(place.shape != weight.shape for place, weight in pairs):
        return False
    if any(device_kind(place.device) in LAID_OUT_ANEW for place, _ in pairs):
        return False
    for place, weight in pairs:
        place.data.copy_(files.read(weight))
    return True


def trim(device: torch.device) -> None:
    """Give memory that is free now back to the system; allocators would keep it for themselves."""
    if device_kind(device) == "cuda":
        torch.cuda.empty_cache()
    elif device_kind(device) == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if release is not None:
            release(0)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of a network's weights."""
    return next(network.parameters()).dtype


def size_of(network: nn.Module) -> int:
    """Bytes of a network's weights."""
    return sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))
