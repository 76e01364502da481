"""Any file of weights as names, shapes, metadata and tensors that are read when asked for.

`open_tensors` looks at the file's first bytes, not at its extension, reads what describes the tensors, and
checks every place against the size of the file. Opening 4 GB takes milliseconds and no memory to speak of;
a tensor's bytes are mapped from the file when it is read. Nothing that a pickle names is ever imported or
called (`unpickle`). torch is imported by `TensorFile.read` alone.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from sdscratch.errors import CheckpointError
from sdscratch.show import printable
from sdscratch.tensorfiles.archive import Archive, read_legacy, read_zip
from sdscratch.tensorfiles.gguf import read_gguf
from sdscratch.tensorfiles.header import BLOCKS, DTYPES, INT8, Header, Span, TensorInfo, read_header
from sdscratch.tensorfiles.inert import Module, StoredTensor
from sdscratch.tensorfiles.scales import scaled
from sdscratch.tensorfiles.sniff import sniff

if TYPE_CHECKING:
    import torch

__all__ = ["TensorFile", "TensorInfo", "open_tensors"]

MAX_ENTRIES = 100_000
MAX_DEPTH = 4  # dicts in dicts; an embedding's vectors are two deep


@dataclass(frozen=True)
class _Place:
    """The bytes of the file that a tensor's elements lie within, and its strides in elements."""

    span: Span
    strides: tuple[int, ...]


@dataclass
class TensorFile:
    """The tensors of one file: described at once, read one by one.

    `tensors` keeps the file's order. `ignored` names what the file holds besides: optimizer, callbacks, ...
    """

    path: Path
    kind: str  # what the file is, in words
    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]
    ignored: tuple[str, ...]
    _places: Mapping[str, _Place]
    _size: int
    _scales: Mapping[str, tuple[TensorInfo, _Place]] = field(default_factory=dict)  # of `header.INT8`

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name` on the CPU, in the file's type, mapped from it: changing it changes only memory.

        A quantised one is made anew, in float32.

        Raises:
            KeyError: no such tensor.
            CheckpointError: the file is no longer what it was.
        """
        import torch

        info, place = self.tensors[name], self._places[name]
        if info.dtype in BLOCKS:
            from sdscratch.tensorfiles.quantised import dequantised

            data = torch.empty(0, dtype=torch.uint8).set_(self._mapped[place.span.start : place.span.end])
            return dequantised(data, info.dtype, info.shape)
        if info.dtype == INT8:
            from sdscratch.models.quantised import widened

            return widened(*self.read_integers(name))
        return self._read(info, place)

    def read_integers(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A tensor of the type `header.INT8` as it lies in the file: integers, and scales [rows, k].

        Both are mapped, as of `read`; what they stand for is `models.quantised.widened`.

        Raises:
            KeyError: no such tensor.
            CheckpointError: the file is no longer what it was.
        """
        info, (scales, place) = self.tensors[name], self._scales[name]
        return self._read(TensorInfo("I8", info.shape), self._places[name]), self._read(scales, place)

    def _read(self, info: TensorInfo, place: _Place) -> torch.Tensor:
        import torch

        empty = torch.empty(0, dtype=getattr(torch, DTYPES[info.dtype][1]))
        if place.span.start == place.span.end:
            return empty.new_empty(info.shape)
        return empty.set_(self._mapped[place.span.start : place.span.end], 0, info.shape, place.strides)

    def start(self, name: str) -> int:
        """Where in the file the tensor's elements begin."""
        return self._places[name].span.start

    def release(self, name: str) -> None:
        """Let the system have the memory back that reading `name` has filled, where it can be told to.

        The tensor can still be used: it is read from the file again, without what was changed in memory.
        """
        span = self._places[name].span
        start = -(-span.start // mmap.PAGESIZE) * mmap.PAGESIZE  # the pages that are the tensor's alone
        length = span.end // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0 and sys.platform == "linux":  # elsewhere the word means something else
            self._map.madvise(mmap.MADV_DONTNEED, start, length)

    def read_ahead(self, names: Iterable[str]) -> None:
        """Have the system fetch these tensors from the disk, so that `read` finds them in memory."""
        if not hasattr(os, "posix_fadvise"):
            return
        spans = sorted((self._places[name].span for name in names), key=lambda span: span.start)
        with suppress(OSError), self.path.open("rb") as file:
            for span in spans:
                os.posix_fadvise(file.fileno(), span.start, span.end - span.start, os.POSIX_FADV_WILLNEED)

    @cached_property
    def _map(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                return mmap.mmap(file.fileno(), self._size, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: it is shorter now
            raise CheckpointError(f"{printable(self.path)} cannot be mapped: {printable(error)}") from None

    @cached_property
    def _mapped(self) -> torch.UntypedStorage:
        import torch

        return torch.frombuffer(self._map, dtype=torch.uint8).untyped_storage()

    def close(self) -> None:
        """Let go of the file; tensors that were read keep their part of it."""
        for name in ("_map", "_mapped"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tensors(path: str | Path) -> TensorFile:
    """The tensors of a safetensors or GGUF file, or of one that torch.save wrote (.ckpt, .pt, .pth, .bin).

    Names are those of the `state_dict` in the file, however deep it stands; where there is none, those of
    the saved dict itself, dicts in it being joined by dots.

    Raises:
        CheckpointError: missing, damaged, refused, or no file of weights; says what it is.
    """
    path = Path(path)
    form = sniff(path)
    if form == "safetensors":
        return _with_scales(_described("safetensors file", path, read_header(path)))
    if form == "gguf":
        return _open_gguf(path)
    kind, reader = _ARCHIVES[form]
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            archive = reader(file, size)
        return _open_archive(path, kind, archive, size)
    except OSError as error:
        raise CheckpointError(f"{printable(path)} cannot be read: {error.strerror}") from None
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{printable(path)} is refused: {printable(error)}") from None


_ARCHIVES: dict[str, tuple[str, Callable[[BinaryIO, int], Archive]]] = {
    "zip": ("PyTorch checkpoint", read_zip),
    "pickle": ("PyTorch checkpoint of the form used before 1.6", read_legacy),
}


def _open_gguf(path: Path) -> TensorFile:
    try:
        with path.open("rb") as file:
            return _described("GGUF file", path, read_gguf(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise CheckpointError(f"{printable(path)} cannot be read: {error.strerror}") from None
    except (ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        raise CheckpointError(
            f"{printable(path)} is a damaged or unknown GGUF file: {printable(error)}"
        ) from None


def _described(kind: str, path: Path, header: Header) -> TensorFile:
    places = {
        name: _Place(span, _row_major(header.tensors[name].shape)) for name, span in header.spans.items()
    }
    size = max((span.end for span in header.spans.values()), default=0)
    return TensorFile(path, kind, header.metadata, header.tensors, (), places, size)


def _with_scales(file: TensorFile) -> TensorFile:
    """The same with integers and their scales as one tensor each, where a file says that it has such."""
    try:
        names = scaled(file.metadata, file.tensors)
    except ValueError as error:
        raise CheckpointError(f"{printable(file.path)} is damaged: {printable(error)}") from None
    beside = {name: (file.tensors[scales], file._places[scales]) for name, scales in names.items()}
    tensors = {
        name: TensorInfo(INT8, info.shape) if name in names else info
        for name, info in file.tensors.items()
        if name not in names.values()
    }
    return replace(file, tensors=tensors, _scales=beside) if names else file


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _open_archive(path: Path, kind: str, archive: Archive, size: int) -> TensorFile:
    root, ignored = _state_dict(archive.root)
    budget = iter(range(MAX_ENTRIES))
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, _Place] = {}
    for key, value in root.items():
        leaves = list(_leaves({key: value}, budget))
        stored = {name: leaf for name, leaf in leaves if isinstance(leaf, StoredTensor)}
        ignored += [name for name, _ in leaves if name not in stored] if stored else [key]
        for name, tensor in stored.items():
            if name in tensors:
                raise ValueError(f"two of its tensors are called {name!r}")
            tensors[name] = TensorInfo(tensor.dtype, tensor.shape)
            places[name] = _place(name, tensor, archive.storages, size)
    if not tensors:
        raise ValueError("it holds no tensors")
    return TensorFile(path, kind, {}, tensors, tuple(ignored), places, size)


def _state_dict(root: Any) -> tuple[dict[str, Any], list[str]]:
    """The innermost `state_dict`, else `root` itself; and the names of what stands beside it."""
    beside: list[str] = []
    for _ in range(MAX_DEPTH):
        if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
            beside += [name for name in root if name != "state_dict"]
            root = root["state_dict"]
    if isinstance(root, list):  # of dicts, as some embeddings are
        root = {str(index): value for index, value in enumerate(root)}
    if not isinstance(root, dict):
        raise ValueError("it holds no dict of tensors")
    return root, beside


def _leaves(tree: dict[str, Any], budget: Iterator[int], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What stands in a dict and in the dicts in it, with dotted names; stops where `budget` ends.

    A dict may hold itself, or another one many times over.
    """
    for key, value in tree.items():
        if next(budget, None) is None:
            raise ValueError("it holds more entries than any model")
        if isinstance(value, Module) and isinstance(value.state, dict):
            value = value.state.get("_parameters")
        if isinstance(value, dict) and depth < MAX_DEPTH:
            for name, leaf in _leaves(value, budget, depth + 1):
                yield f"{key}.{name}", leaf
        else:
            yield key, value


def _place(name: str, tensor: StoredTensor, storages: Mapping[str, Span], size: int) -> _Place:
    """Where a tensor's elements are, after a check that its storage, and the file, hold all of them."""
    info, storage = TensorInfo(tensor.dtype, tensor.shape), tensor.storage
    if not info.bytes:
        return _Place(Span(0, 0), tensor.strides)
    if storage.key not in storages:
        raise ValueError(f"the bytes of {name!r} are not in it")
    item, storage_item = DTYPES[tensor.dtype][0], DTYPES[storage.dtype][0]
    whole = storages[storage.key]
    last = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    begin = storage.start * storage_item
    start, end = begin + tensor.offset * item, begin + (tensor.offset + last + 1) * item
    # a view may repeat its elements, but not until the tensor is larger than the file
    if end > begin + storage.elements * storage_item or whole.start + end > whole.end or info.bytes > size:
        raise ValueError(f"the tensor {name!r} is larger than its storage")
    return _Place(Span(whole.start + start, whole.start + end), tensor.strides)
