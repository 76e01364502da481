"""What the globals in a pickle stand for: recipes of this module, never the real functions and classes.

`GLOBALS` names each global that checkpoints hold for good reasons; any other is refused. Those that matter
for the weights make descriptions of tensors, the rest make `OPAQUE`, which holds nothing.
This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["GLOBALS", "OPAQUE", "ElementType", "Module", "Opaque", "Recipe", "Storage", "StoredTensor"]

MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class ElementType:
    """A storage class or a dtype, by safetensors' name; "U8" for storages without a type."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of elements in the file, of which tensors are views."""

    key: str
    dtype: str
    elements: int
    start: int = 0  # elements to skip: in old files a storage can be a part of another


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A strided view of a storage; offset and strides are counted in elements of the tensor's type."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class Module:
    """An `nn.Module` reduced to its state: old embeddings keep their vectors in an `nn.ParameterDict`."""

    state: Any = None


class Opaque:
    """Whatever is no weight: takes any arguments, items and state, and keeps none."""


OPAQUE = Opaque()


@dataclass(frozen=True, eq=False)
class Recipe:
    """A function or class that a pickle may call: how to make an inert value of its arguments."""

    make: Callable[..., Any]


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any = None, bits: Any = None
) -> StoredTensor:
    if dtype is not None and not isinstance(dtype, ElementType):
        raise ValueError("a tensor in it has no type")
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or bits:
        raise ValueError("a tensor in it has no plain storage")  # bits: conjugated or negated lazily
    if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        raise ValueError("a tensor in it has an impossible shape")
    return StoredTensor(storage, dtype.dtype if dtype else storage.dtype, offset, shape, strides)


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
        return False
    return all(type(value) is int and 0 <= value < 2**60 for value in values)


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, bits: Any = None
) -> StoredTensor:
    return _tensor(storage, offset, shape, strides, bits=bits)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, bits: Any = None
) -> StoredTensor:
    return _tensor(storage, offset, shape, strides, dtype, bits)


def _tensor_with_attributes(recipe: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    if recipe not in (_TENSOR_V2, _TENSOR_V3, _PARAMETER) or not isinstance(arguments, tuple):
        raise ValueError("a tensor in it has no recipe")
    return recipe.make(*arguments)


def _ordered_dict() -> dict[str, Any]:
    # items come afterwards; copying some that are given here, again and again, would take quadratic time
    return {}


_TENSOR_V2 = Recipe(_tensor_v2)
_TENSOR_V3 = Recipe(_tensor_v3)
_PARAMETER = Recipe(lambda tensor, *_: tensor)
_INERT = Recipe(lambda *_: OPAQUE)

_ELEMENT_TYPES = {  # safetensors' name: torch's storage class (if there is one) and dtype
    "F64": ("DoubleStorage", "float64"),
    "F32": ("FloatStorage", "float32"),
    "F16": ("HalfStorage", "float16"),
    "BF16": ("BFloat16Storage", "bfloat16"),
    "C64": ("ComplexFloatStorage", "complex64"),
    "I64": ("LongStorage", "int64"),
    "I32": ("IntStorage", "int32"),
    "I16": ("ShortStorage", "int16"),
    "I8": ("CharStorage", "int8"),
    "U8": ("ByteStorage", "uint8"),
    "BOOL": ("BoolStorage", "bool"),
    "U64": (None, "uint64"),
    "U32": (None, "uint32"),
    "U16": (None, "uint16"),
    "F8_E4M3": (None, "float8_e4m3fn"),
    "F8_E5M2": (None, "float8_e5m2"),
}

# Python 2's module name stands beside Python 3's where files of both are about.
_INERT_NAMES = (
    "__builtin__.bytes",
    "__builtin__.dict",
    "__builtin__.list",
    "__builtin__.set",
    "builtins.dict",
    "builtins.list",
    "builtins.set",
    "_codecs.encode",
    "collections.Counter",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
)

GLOBALS: dict[str, Recipe | ElementType] = {
    "torch._utils._rebuild_tensor": Recipe(_tensor),
    "torch._utils._rebuild_tensor_v2": _TENSOR_V2,
    "torch._utils._rebuild_tensor_v3": _TENSOR_V3,
    "torch._utils._rebuild_parameter": _PARAMETER,
    "torch._utils._rebuild_parameter_with_state": _PARAMETER,
    "torch._tensor._rebuild_from_type_v2": Recipe(_tensor_with_attributes),
    "torch.nn.modules.container.ParameterDict": Recipe(lambda *_: Module()),
    "collections.OrderedDict": Recipe(_ordered_dict),
    "collections.defaultdict": Recipe(lambda *_: {}),
    "torch.storage.UntypedStorage": ElementType("U8"),
    **dict.fromkeys(_INERT_NAMES, _INERT),
    **{f"torch.{dtype}": ElementType(name) for name, (_, dtype) in _ELEMENT_TYPES.items()},
    **{f"torch.{storage}": ElementType(name) for name, (storage, _) in _ELEMENT_TYPES.items() if storage},
}
