"""LoRA files of every kind (`addons.kinds`): changes of a model's weights, made where they are read.

Every tensor of a file is accounted for. A file that fits the model not at all, or only in part, is an error:
nothing is worse than an add-on that silently does nothing. torch is not imported here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.addons.embedding import Embedding, bundled_embeddings, check_width, is_bundled
from sdscratch.addons.kinds.dora import LENGTHS
from sdscratch.addons.kinds.full import BIASES
from sdscratch.addons.kinds.kind import Kind, Operands
from sdscratch.addons.kinds.low_rank import LORA
from sdscratch.addons.kinds.table import bias_changed, changed, fits, kinds_of, lacking, scales_bias
from sdscratch.addons.lora_names import Role, Target, part_of, place, places, split_name
from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.peft import CONFIG, PeftSettings, lora_name, peft_settings
from sdscratch.errors import CheckpointError
from sdscratch.models.config import ModelConfig
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.header import FLOATS
from sdscratch.tensorfiles.identify import LORA_KINDS, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Lora",
    "Module",
    "alpha",
    "has_unknown_strength",
    "kind_of",
    "misfits",
    "open_lora",
    "rank",
    "read_modules",
    "scale",
    "shapes_of",
]

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


@dataclass(frozen=True)
class Part:
    """What a module does to one weight: `kind`, or what it adds to a bias where that is None."""

    module: Module
    kind: Kind | None


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA of which every tensor has its place in one model; nothing of it is in memory yet."""

    path: Path
    name: str  # what people call it: the file's name without suffix
    file: TensorFile
    modules: Mapping[Weight, Part]
    embeddings: tuple[Embedding, ...] = ()  # that came in the same file (`bundle_emb.…`)

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of the file the first time."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return hash_files([self.path])

    @cached_property
    def _doubt(self) -> None:
        """Say once, when it is first applied, that nobody knows how strong it should be."""
        if has_unknown_strength(self.file, (part.module for part in self.modules.values())):
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
            CheckpointError: NaN or infinity in the file, or values that make no sense.
        """
        part = self.modules.get(weight)
        if part is None or strength == 0.0:
            return tensor
        _ = self._doubt
        base = tensor if tensor.dtype.itemsize == 8 else tensor.float()
        operands = self._operands(part, base)
        if part.kind is None:
            return bias_changed(operands, base, strength)
        try:
            return changed(part.kind, operands, base, strength).reshape(weight.shape)
        except ValueError as error:
            raise CheckpointError(
                f"{self.path} cannot change {printable(part.module.name)}: {error}"
            ) from None

    def _operands(self, part: Part, base: Tensor) -> Operands:
        module = part.module
        roles = {*BIASES, "ia3_l"} if part.kind is None else part.kind.roles | {*LENGTHS}
        tensors = {
            role: self.file.read(name).to(base.dtype)
            for role, name in module.tensors.items()
            if role in roles
        }
        given, factor = alpha(self.file, module), scale(self.file, module)
        numbers = all(math.isfinite(value) for value in (given or 0.0, factor))
        if not numbers or not all(bool(values.isfinite().all()) for values in tensors.values()):
            raise CheckpointError(
                f"{self.path} holds NaN or infinity in {printable(module.name)}; it is damaged"
            )
        return Operands(tensors, given, factor)


def open_lora(path: Path, config: ModelConfig) -> Lora:
    """Open a LoRA of any kind for a model of this shape: kohya's, LyCORIS', diffusers' or PEFT's names.

    Raises:
        CheckpointError: unreadable; another kind of add-on; or some of it has no place in the model.
    """
    file = open_tensors(path)
    identity = identify({name: info.shape for name, info in file.tensors.items()})
    if identity.kind not in LORA_KINDS:
        raise CheckpointError(
            f"{path} is {identity}; sdscratch takes LoRA files of every kind for Stable Diffusion 1.x "
            "(kohya's, LyCORIS', diffusers' or PEFT's)"
        )
    modules, strangers = read_modules(file)
    known = places(config)
    homeless = [module.key for module in modules if place(module.name) not in known]
    if homeless:
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
    if strangers:
        raise CheckpointError(
            f"{path} cannot be applied in full: there is no place for {listed(strangers)}, "
            "which belongs to no kind of LoRA that is known here"
        )
    placed: dict[Weight, Part] = {}
    seen: set[Target] = set()
    for module in modules:
        target = known[place(module.name)]
        if target in seen:
            raise CheckpointError(
                f"{path} changes {printable(module.name)} twice, under two names; it is damaged"
            )
        seen.add(target)
        placed |= dict(_parts(file, module, target))
    width = config.text.width
    embeddings = bundled_embeddings(file, width)
    for embedding in embeddings:
        check_width(embedding, width)
    return Lora(path, lora_name(path), file, placed, embeddings)


def misfits(file: TensorFile, config: ModelConfig) -> list[str]:
    """What of a file would not fit a model of this shape: names of tensors, and whole sentences.

    Raises:
        CheckpointError: never; what is wrong is what is told.
    """
    modules, strangers = read_modules(file)
    known = places(config)
    found = [*strangers]
    for module in modules:
        target = known.get(place(module.name))
        if target is None:
            found += module.tensors.values()
            continue
        try:
            list(_parts(file, module, target))
        except CheckpointError as error:
            found.append(str(error))
    return found


def read_modules(file: TensorFile) -> tuple[list[Module], list[str]]:
    """The modules that a file changes, and the tensors that are no part of a LoRA, nor bundled embeddings."""
    found: dict[str, dict[Role, str]] = {}
    strangers: list[str] = []
    for name in file.tensors:
        if is_bundled(name):
            continue
        module, role = split_name(name) or ("", None)
        if role is None or role in found.get(module, {}):  # the latter: two layouts' names for one matrix
            strangers.append(name)
        else:
            found.setdefault(module, {})[role] = name
    return [Module(module, tensors) for module, tensors in found.items()], strangers


def shapes_of(file: TensorFile, module: Module) -> dict[Role, tuple[int, ...]]:
    """The shapes of a module's tensors."""
    return {role: file.tensors[name].shape for role, name in module.tensors.items()}


def kind_of(file: TensorFile, module: Module) -> Kind | None:
    """How a module changes its weight; None where it changes a bias alone, or cannot be told."""
    kinds = kinds_of(shapes_of(file, module))
    return kinds[0] if kinds else None


def rank(file: TensorFile, module: Module) -> int | None:
    """What alpha is divided by: of a LoRA the rows of `down`; None where nothing is divided."""
    kind = kind_of(file, module)
    try:
        return kind.rank(shapes_of(file, module)) if kind is not None else None
    except (KeyError, IndexError):  # half of it, or no matrix: for `open_lora` to say
        return None


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
    size, given = rank(file, module), alpha(file, module)
    if not size:
        return 1.0
    return _peft_settings(file, module).scale(given, size)


def _peft_settings(file: TensorFile, module: Module) -> PeftSettings:
    return peft_settings(file.path, file.metadata, part_of(module.name))


def has_unknown_strength(file: TensorFile, modules: Iterable[Module]) -> bool:
    """Whether nothing says an alpha of tensors that bear PEFT's names: there is one, but elsewhere."""
    named = [module for module in modules if any(".lora_A" in name for name in module.tensors.values())]
    return bool(named) and not any(
        "alpha" in module.tensors or _peft_settings(file, module).known for module in named
    )


def _parts(file: TensorFile, module: Module, target: Target) -> Iterator[tuple[Weight, Part]]:
    """What a module changes, after a check that all it needs is there and fits."""
    shapes = shapes_of(file, module)
    kinds = kinds_of(shapes)
    if len(kinds) > 1:
        names = " and as ".join(kind.name for kind in kinds)
        raise CheckpointError(
            f"{file.path} changes {printable(module.name)} twice, as {names}; it is damaged"
        )
    biases = [role for role in BIASES if role in shapes]
    if not kinds and (not biases or any(role in shapes for role in LENGTHS)):
        raise CheckpointError(
            f"{file.path} lacks the other half of {printable(module.key)}; it is incomplete"
        )
    if "alpha" in module.tensors:
        _check_alpha(file, module.tensors["alpha"])
    for kind in kinds:
        _check(file, module, kind, target.weight)
        yield target.weight, Part(module, kind)
        if target.bias is not None and scales_bias(kind, shapes, target.weight.shape):
            yield target.bias, Part(module, None)
    if len(biases) > 1 or (biases and (target.bias is None or shapes[biases[0]] != target.bias.shape)):
        raise CheckpointError(
            f"{file.path} cannot be applied in full: there is no place for "
            f"{printable(module.tensors[biases[0]])} {list(shapes[biases[0]])} in this model, whose module "
            f"has {'no bias' if target.bias is None else f'a bias of {list(target.bias.shape)}'}"
        )
    if biases and target.bias is not None:
        yield target.bias, Part(module, None)


def _check(file: TensorFile, module: Module, kind: Kind, weight: Weight) -> None:
    """All tensors of a kind are there, of floats, and together have the weight's shape."""
    shapes = shapes_of(file, module)
    wanting = lacking(kind, shapes.keys())
    missing = sorted(role for role in wanting if role not in shapes)
    if missing:
        raise CheckpointError(
            f"{file.path} lacks the other half of {printable(module.key)} "
            f"({kind.name}: {', '.join(missing)}); it is incomplete"
        )
    if wanting:
        over = ", ".join(printable(module.tensors[role]) for role in sorted(wanting))
        raise CheckpointError(f"{file.path} holds {over} beside what says the same; it is damaged")
    floats = all(
        file.tensors[name].dtype in FLOATS for role, name in module.tensors.items() if role not in NUMBERS
    )
    if not floats or not fits(kind, shapes, weight.shape):
        raise CheckpointError(
            f"{file.path} holds {printable(module.name)} as {_told(file, module, kind)}, which does not fit "
            f"{list(weight.shape)}; the LoRA is made for another kind of model"
        )


NUMBERS = ("alpha", "on_input")  # roles that may be of any type


def _told(file: TensorFile, module: Module, kind: Kind) -> str:
    """A module's tensors in words."""

    def told(role: Role) -> str:
        info = file.tensors[module.tensors[role]]
        return f"{info.dtype} {list(info.shape)}"

    others = [role for role in module.tensors if role not in ("up", "down", "alpha")]
    if kind is LORA and not others:
        return f"{told('up')} times {told('down')}"
    return f"{kind.name} of " + ", ".join(
        f"{role} {told(role)}" for role in module.tensors if role != "alpha"
    )


def _check_alpha(file: TensorFile, name: str) -> None:
    info = file.tensors[name]
    if math.prod(info.shape) != 1 or info.dtype.startswith("C"):
        raise CheckpointError(f"{file.path} holds {printable(name)}, which is no number; it is damaged")
