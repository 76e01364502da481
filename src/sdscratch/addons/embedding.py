"""Textual inversion (Gal et al. 2022): vectors that stand for words, under a name, from every form of file.

    web UI      {"string_to_param": {"*": [n, d]}, "name": …}, the inner dict perhaps an nn.ParameterDict; .pt
    diffusers   {"<token>": [d] or [n, d]}; .bin, .safetensors
    kohya       {"emb_params": [n, d]}; .safetensors
    SDXL        {"clip_l": [n, 768], "clip_g": [n, 1280]}, of which clip_l serves Stable Diffusion 1.x
    lists       of such dicts: their rows one after another
    cards       pictures that hold one (`addons.cards`)
    bundles     in a LoRA, each under `bundle_emb.NAME.`

torch is imported by `Embedding.vectors` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.addons.cards import is_card, read_card
from sdscratch.checkpoints.hashing import digest_files
from sdscratch.checkpoints.places import find_embedding
from sdscratch.errors import CheckpointError
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.header import FLOATS
from sdscratch.tensorfiles.identify import Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Embedding", "bundled_embeddings", "check_width", "is_bundled", "open_embedding", "read_embedding"]

BUNDLE = "bundle_emb."
MAX_VECTORS = 1000  # a prompt's chunk holds 75
MADE_FOR = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "SDXL",
}
# What stands beside the vectors in a file.
BESIDE = ("string_to_token.",)
STANDARD = ("emb_params", "clip_l", "clip_g")  # names that are no token's
KINDS = (Kind.EMBEDDING, Kind.EMBEDDING_SD2, Kind.EMBEDDING_SDXL, Kind.UNKNOWN)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors under a name; they are read when they are asked for."""

    name: str  # what calls it in a prompt: the file's name without suffix
    count: int  # n
    width: int  # d
    path: Path
    _read: Callable[[], Tensor]
    token: str | None = None  # what diffusers calls it, where the file says so

    @cached_property
    def vectors(self) -> Tensor:
        """[n, d] in float32 on the CPU, in place of a token embedding each.

        Raises:
            CheckpointError: NaN or infinity in the file.
        """
        vectors = self._read().float().reshape(self.count, self.width)
        if not bool(vectors.isfinite().all()):
            raise CheckpointError(f"{self.path} holds NaN or infinity; it is damaged")
        return vectors

    def digest(self) -> str:
        """The file's whole SHA-256 (the web UIs write 12 digits of it as "TI hashes")."""
        return digest_files([self.path])


def open_embedding(name: str, width: int) -> Embedding:
    """Find and open a textual inversion for a model whose text encoder has this width.

    Args:
        name: a file, or a name in ./embeddings or the user's embeddings, its suffix left out or not.

    Raises:
        CheckpointError: missing, unreadable, no embedding, or one of another width.
    """
    embedding = read_embedding(find_embedding(name), width)
    check_width(embedding, width)
    return embedding


def check_width(embedding: Embedding, width: int) -> None:
    """
    Raises:
        CheckpointError: its vectors are of another width; says what it is made for.
    """
    if embedding.width != width:
        theirs = MADE_FOR.get(embedding.width, "another kind of model")
        raise CheckpointError(
            f"{embedding.path} holds the embedding {printable(embedding.name)} of {embedding.width} numbers "
            f"a vector, made for {theirs}; the model's have {width}"
        )


def read_embedding(path: Path, width: int = 768) -> Embedding:
    """The embedding in a file of any form.

    Args:
        width: which of several text encoders' vectors to take; others come where there are none.

    Raises:
        CheckpointError: unreadable, or no embedding.
    """
    if is_card(path):
        return _from_card(path, width)
    file = open_tensors(path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    if (identity := identify(shapes)).kind not in KINDS:
        raise CheckpointError(f"{path} is {identity}, no textual inversion embedding")
    return _from_tensors(path.stem, file, list(file.tensors), width)


def is_bundled(name: str) -> bool:
    """Whether a LoRA's tensor is an embedding's that came with it."""
    return name.startswith(BUNDLE)


def bundled_embeddings(file: TensorFile, width: int = 768) -> tuple[Embedding, ...]:
    """The embeddings in a LoRA.

    Raises:
        CheckpointError: one is none.
    """
    groups: dict[str, list[str]] = {}
    for name in filter(is_bundled, file.tensors):
        groups.setdefault(name.split(".")[1], []).append(name)
    return tuple(_from_tensors(name, file, names, width) for name, names in groups.items())


def _from_tensors(name: str, file: TensorFile, names: list[str], width: int) -> Embedding:
    """One embedding of those tensors of a file."""
    shapes = {each: file.tensors[each].shape for each in names if not _inner(each).startswith(BESIDE)}
    rows = _rows(file.path, shapes, width)
    for each in rows:
        if file.tensors[each].dtype not in FLOATS:
            raise CheckpointError(
                f"{file.path} holds {printable(each)} in {file.tensors[each].dtype}, no type of an embedding"
            )

    def read() -> Tensor:
        import torch

        size = next(iter(rows.values()))[1]
        return torch.cat([file.read(each).float().reshape(-1, size) for each in rows])

    first = next(iter(rows))
    return _made(name, file.path, rows, read, None if first in STANDARD or "." in first else first)


def _made(
    name: str,
    path: Path,
    rows: Mapping[str, tuple[int, int]],
    read: Callable[[], Tensor],
    token: str | None = None,
) -> Embedding:
    count = sum(count for count, _ in rows.values())
    if not 0 < count <= MAX_VECTORS:
        raise CheckpointError(f"{path} holds {count} vectors; an embedding has 1 to {MAX_VECTORS}")
    return Embedding(name, count, next(iter(rows.values()))[1], path, read, token)


def _inner(name: str) -> str:
    return name.split(".", 2)[-1] if is_bundled(name) else name


def _rows(path: Path, shapes: Mapping[str, tuple[int, ...]], width: int) -> dict[str, tuple[int, int]]:
    """The tensors to take, with how many vectors of which width each holds.

    Of several text encoders' the one with the right width; of a list of dicts all of that width.

    Raises:
        CheckpointError: none is an embedding, or several could be.
    """
    flat = {name: (1, shape[0]) for name, shape in shapes.items() if len(shape) == 1}
    flat |= {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}
    if len(flat) < len(shapes) or not flat or any(0 in rows for rows in flat.values()):
        names = list(shapes.keys() - flat.keys()) or list(shapes)
        raise CheckpointError(
            f"{path} is no textual inversion embedding: {listed(names) or 'nothing'} is no list of vectors"
        )
    if encoders := {name: rows for name, rows in flat.items() if _inner(name) in ("clip_l", "clip_g")}:
        fitting = {name: rows for name, rows in encoders.items() if rows[1] == width}
        return fitting or dict(list(encoders.items())[-1:])
    listed_ones = all(name.split(".", 1)[0].isdigit() for name in flat)  # of a list
    if len(flat) > 1 and not listed_ones:
        raise CheckpointError(
            f"{path} holds {len(flat)} tensors ({listed(list(flat))}); a textual inversion embedding has one"
        )
    fitting = {name: rows for name, rows in flat.items() if rows[1] == width}
    return fitting or dict(list(flat.items())[:1])


# --- Cards -----------------------------------------------------------------------------------------------


def _from_card(path: Path, width: int) -> Embedding:
    record = read_card(path)
    values: dict[str, list[Any]] = {}
    _collect(record, "", values, 0)
    shapes = {name: _shape(value) for name, value in values.items() if not name.startswith(BESIDE)}
    rows = _rows(path, shapes, width)

    def read() -> Tensor:
        import torch

        size = next(iter(rows.values()))[1]
        try:
            return torch.cat(
                [torch.tensor(values[name], dtype=torch.float32).reshape(-1, size) for name in rows]
            )
        except (TypeError, ValueError, RuntimeError):
            raise CheckpointError(
                f"{path} holds an embedding with something else than numbers in it"
            ) from None

    name = record.get("name")
    return _made(name if isinstance(name, str) and name else path.stem, path, rows, read)


def _collect(tree: Any, name: str, into: dict[str, list[Any]], depth: int) -> None:
    """Every {"TORCHTENSOR": …} in JSON, by its dotted name."""
    if isinstance(tree, dict) and isinstance(tree.get("TORCHTENSOR"), list):
        into[name] = tree["TORCHTENSOR"]
    elif isinstance(tree, dict) and depth < 4:
        for key, value in tree.items():
            _collect(value, f"{name}.{key}" if name else key, into, depth + 1)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists, by the first of each."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) < 3:
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)
