"""LoRA files: low-rank changes of a model's weights (Hu et al. 2021, section 4.1), added where they are read.

For every weight W that the file changes it holds two thin matrices, and it becomes

    W + weight · (alpha / rank) · up · down        up [out, rank], down [rank, in]

with `in` counting a convolution's positions, too. A LoRA that fits the model not at all, or only in part, is
an error: nothing is worse than an add-on that silently does nothing. torch is not imported here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.lora_names import Role, part_of, place, places, split_name
from sdscratch.checkpoints.peft import CONFIG, PeftSettings, lora_name, peft_settings
from sdscratch.errors import CheckpointError
from sdscratch.models.config import ModelConfig
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.header import FLOATS
from sdscratch.tensorfiles.identify import Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LORA_KINDS",
    "AppliedLora",
    "Lora",
    "alpha",
    "has_unknown_strength",
    "open_lora",
    "rank",
    "read_modules",
]

LORA_KINDS = (Kind.LORA_KOHYA, Kind.LORA_DIFFUSERS, Kind.LORA_PEFT)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Module:
    """What a file holds for one module of the model: names of its tensors."""

    name: str  # as the file has it
    tensors: Mapping[Role, str]

    @property
    def key(self) -> str:
        """A tensor that an error can name."""
        return next(iter(self.tensors.values()))


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA of which every tensor has its place in one model; nothing of it is in memory yet."""

    path: Path
    name: str  # what people call it: the file's name without suffix
    file: TensorFile
    modules: Mapping[Weight, Module]

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of the file the first time."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return hash_files([self.path])

    @cached_property
    def _doubt(self) -> None:
        """Say once, when it is first applied, that nobody knows how strong it should be."""
        if has_unknown_strength(self.file, self.modules.values()):
            log.warning(
                "%s does not say how strong it is: PEFT keeps that in %s, which is not beside it; "
                "it is applied as if alpha were its rank",
                printable(self.path),
                CONFIG,
            )

    def add(self, weight: Weight, tensor: Tensor, strength: float) -> Tensor:
        """A weight of the model with its change, in float32 (a double stays one).

        The very tensor comes back where the LoRA does not touch it, or the strength is 0.

        Raises:
            CheckpointError: NaN or infinity in the file.
        """
        module = self.modules.get(weight)
        if module is None or strength == 0.0:
            return tensor
        _ = self._doubt
        base = tensor if tensor.dtype.itemsize == 8 else tensor.float()
        up, down = (self.file.read(module.tensors[role]).to(base.dtype).flatten(1) for role in ("up", "down"))
        factor = strength * scale(self.file, module)
        if not (math.isfinite(factor) and up.isfinite().all() and down.isfinite().all()):
            raise CheckpointError(
                f"{self.path} holds NaN or infinity in {printable(module.name)}; it is damaged"
            )
        return base.flatten(1).addmm(up, down, alpha=factor).view(weight.shape)


class AppliedLora(NamedTuple):
    """A LoRA and how strongly it is applied."""

    lora: Lora
    weight: float


def open_lora(path: Path, config: ModelConfig) -> Lora:
    """Open a LoRA for a model of this shape: kohya's, diffusers' or PEFT's names, any suffix.

    Raises:
        CheckpointError: unreadable; another kind of add-on; or some of it has no place in the model.
    """
    file = open_tensors(path)
    identity = identify({name: info.shape for name, info in file.tensors.items()})
    if identity.kind not in LORA_KINDS:
        raise CheckpointError(
            f"{path} is {identity}; sdscratch takes plain LoRA files for Stable Diffusion 1.x (kohya's, "
            "diffusers' or PEFT's)"
        )
    modules, strangers = read_modules(file)
    known = places(config)
    homeless = [module.key for module in modules if place(module.name) not in known]
    if homeless or strangers:
        fitting = len(modules) - len(homeless)
        reach = (
            f"only {fitting} of the {len(modules)} modules in {path} fit"
            if fitting
            else f"{path} does not fit"
        )
        raise CheckpointError(
            f"{reach} this model: it has no place for {listed(homeless + strangers)}; "
            "the LoRA is made for another kind of model"
        )
    placed: dict[Weight, Module] = {}
    for module in modules:
        weight = known[place(module.name)]
        if weight in placed:
            raise CheckpointError(
                f"{path} changes {printable(module.name)} twice, under two names; it is damaged"
            )
        _check(file, module, weight)
        placed[weight] = module
    return Lora(path, lora_name(path), file, placed)


def read_modules(file: TensorFile) -> tuple[list[Module], list[str]]:
    """The modules that a file changes, and the tensors that are no part of a LoRA."""
    found: dict[str, dict[Role, str]] = {}
    strangers: list[str] = []
    for name in file.tensors:
        module, role = split_name(name) or ("", None)
        if role is None or role in found.get(module, {}):  # the latter: two layouts' names for one matrix
            strangers.append(name)
        else:
            found.setdefault(module, {})[role] = name
    return [Module(module, tensors) for module, tensors in found.items()], strangers


def rank(file: TensorFile, module: Module) -> int:
    """How many rows `down` has."""
    return file.tensors[module.tensors["down"]].shape[0]


def alpha(file: TensorFile, module: Module) -> float | None:
    """The module's alpha: its own tensor, else what PEFT's settings say; None where nothing does, or 0.

    Raises:
        CheckpointError: no number, or broken settings.
    """
    if "alpha" in module.tensors:
        _check_alpha(file, module.tensors["alpha"])
        return float(file.read(module.tensors["alpha"])) or None
    return _peft_settings(file, module).alpha(module.name)


def scale(file: TensorFile, module: Module) -> float:
    """alpha / rank; 1 where there is no alpha, as alpha is the rank then."""
    return _peft_settings(file, module).scale(alpha(file, module), rank(file, module))


def _peft_settings(file: TensorFile, module: Module) -> PeftSettings:
    return peft_settings(file.path, file.metadata, part_of(module.name))


def has_unknown_strength(file: TensorFile, modules: Iterable[Module]) -> bool:
    """Whether nothing says an alpha of tensors that bear PEFT's names: there is one, but elsewhere."""
    named = [module for module in modules if any(".lora_A" in name for name in module.tensors.values())]
    return bool(named) and not any(
        "alpha" in module.tensors or _peft_settings(file, module).known for module in named
    )


def _check(file: TensorFile, module: Module, weight: Weight) -> None:
    """Both matrices are there, of floats, and their product has the weight's shape."""
    for role in ("up", "down"):
        if role not in module.tensors:
            raise CheckpointError(
                f"{file.path} lacks the other half of {printable(module.key)}; it is incomplete"
            )
    down, up = (file.tensors[module.tensors[role]] for role in ("down", "up"))
    size = down.shape[0] if down.shape else 0
    fits = _squeezed(down.shape) == _squeezed((size, *weight.shape[1:]))
    fits = fits and _squeezed(up.shape) == (weight.shape[0], size) and size > 0
    if not fits or down.dtype not in FLOATS or up.dtype not in FLOATS:
        raise CheckpointError(
            f"{file.path} holds {printable(module.name)} as {up.dtype} {list(up.shape)} times {down.dtype} "
            f"{list(down.shape)}, which does not fit {list(weight.shape)}; "
            "the LoRA is made for another kind of model"
        )
    if "alpha" in module.tensors:
        _check_alpha(file, module.tensors["alpha"])


def _check_alpha(file: TensorFile, name: str) -> None:
    info = file.tensors[name]
    if math.prod(info.shape) != 1 or info.dtype.startswith("C"):
        raise CheckpointError(f"{file.path} holds {printable(name)}, which is no number; it is damaged")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1×1 convolution is a matrix."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape
