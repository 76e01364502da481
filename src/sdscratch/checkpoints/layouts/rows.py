"""The machine behind the tables: rows of patterns, expanded over a configuration into weights.

A row gives one module's or tensor's whole path in our network, in LDM's files and in diffusers', and the
shape of its weight:

    down.{g}.{b}.conv1.*   input_blocks.{g}.{b}.in_layers.2.*   down_blocks.{l}.resnets.{i}.conv1.*
    outputs inputs 3 3

`{…}` and the words of a shape are filled in for each block of a network; `.*` stands for `.weight` and
`.bias`. What LDM stores differently is marked behind its name: `[1x1]` has two more sides of length 1 (a
convolution where ours is a matrix), `[T]` is transposed, and `[1/3]` is the second of three equal parts of
the tensor, cut along its first side. This module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from sdscratch.checkpoints.names import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Part", "Row", "Rows", "Shape", "Values", "Weight", "at", "expand", "inverted", "joined", "rows"]

# of a model; and networks beside it (`addons.control`)
Part = Literal[
    "text", "text2", "unet", "encoder", "decoder", "controlnet", "adapter", "vision", "image_prompt"
]
Shape = tuple[int, ...]

MARKED = re.compile(r"([^\[]+)(?:\[(1x1|T|(\d+)/(\d+))\])?")


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a model under its three names."""

    part: Part
    name: str  # in the part's state_dict
    ldm: str  # in an LDM file
    diffusers: str  # in a diffusers folder, its subfolder in front
    shape: Shape  # in our networks and in diffusers'
    ldm_shape: Shape  # of the whole tensor that LDM calls so
    piece: tuple[int, int] = (0, 1)  # which of how many equal parts of that tensor it is
    transposed: bool = False  # in LDM's

    def stored(self, layout: Layout) -> tuple[str, Shape]:
        """The name and shape of the tensor that it is, or is a part of, in a file of that layout."""
        return (self.ldm, self.ldm_shape) if layout == "ldm" else (self.diffusers, self.shape)

    def fits(self, shape: Shape, layout: Layout) -> bool:
        """Whether a file's tensor can be it: a matrix and a 1×1 convolution are the same numbers, and tools
        have written both."""
        return _pointless(shape) == _pointless(self.stored(layout)[1])

    def taken(self, tensor: Tensor, layout: Layout) -> Tensor:
        """It in our shape, out of the tensor that a file of that layout holds."""
        index, count = self.piece
        if layout == "ldm" and count > 1:
            tensor = tensor.chunk(count)[index]
        if layout == "ldm" and self.transposed:
            tensor = tensor.T.contiguous()
        return tensor.reshape(self.shape)


def joined(tensors: Mapping[Weight, Tensor], layout: Layout) -> Tensor:
    """The inverse of `taken`: all weights of one stored tensor, in our shapes, as that tensor."""
    import torch

    pieces = [tensors[weight] for weight in sorted(tensors, key=lambda weight: weight.piece)]
    weight = next(iter(tensors))
    if layout == "ldm" and weight.transposed:
        pieces = [piece.T for piece in pieces]
    whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    return whole.reshape(weight.stored(layout)[1])


def _pointless(shape: Shape) -> Shape:
    return shape[:2] if shape[2:] == (1, 1) else shape


class Row(NamedTuple):
    """One line of a table."""

    ours: str
    ldm: str
    diffusers: str
    shape: str


Rows = tuple[Row, ...]
Stem = tuple[str, str, str]
Values = Mapping[str, int | str | Shape]


def rows(text: str) -> Rows:
    """A table as it is read: three paths and a shape a line; `=` is the path to the left of it."""
    found = []
    for line in text.strip().splitlines():
        ours, ldm, diffusers, *shape = line.split()
        ldm = ours if ldm == "=" else ldm
        found.append(Row(ours, ldm, ldm if diffusers == "=" else diffusers, " ".join(shape)))
    return tuple(found)


def at(stem: Stem, table: Rows) -> Rows:
    """A block's rows with the whole path, where the block stands."""
    ours, ldm, diffusers = stem
    return tuple(
        Row(f"{ours}.{row.ours}", f"{ldm}.{row.ldm}", f"{diffusers}.{row.diffusers}", row.shape)
        for row in table
    )


def expand(part: Part, prefixes: tuple[str, str], table: Iterable[Row], values: Values) -> Iterator[Weight]:
    """The weights that rows stand for in one block.

    Args:
        prefixes: what LDM and diffusers put in front of all names of this network.
        values: what stands for the words in braces, and in shapes; a tuple there is several sides, or none.
    """
    for row in table:
        ours, ldm, diffusers = (path.format_map(values) for path in row[:3])
        name, mark, index, count = _parsed(ldm)
        shape = _shape(row.shape, values)
        for leaf in ("weight", "bias") if ours.endswith(".*") else ("",):
            sides = shape[:1] if leaf == "bias" else shape
            stored = sides
            if mark == "1x1" and leaf != "bias":
                stored = (*sides, 1, 1)
            elif mark == "T":
                stored = sides[::-1]
            yield Weight(
                part,
                ours.replace("*", leaf),
                prefixes[0] + name.replace("*", leaf),
                prefixes[1] + diffusers.replace("*", leaf),
                sides,
                (count * stored[0], *stored[1:]),
                (index, count),
                mark == "T",
            )


def _parsed(ldm: str) -> tuple[str, str | None, int, int]:
    """LDM's name, its mark, and which piece of how many it means."""
    match = MARKED.fullmatch(ldm)
    assert match is not None, ldm
    name, mark, index, count = match.groups()
    return name, mark, int(index or 0), int(count or 1)


def _shape(words: str, values: Values) -> Shape:
    sides: list[int] = []
    for word in words.split():
        value = int(word) if word.isdigit() else values[word]
        assert not isinstance(value, str)
        sides += [value] if isinstance(value, int) else value
    return tuple(sides)


def inverted(weights: Sequence[Weight], layout: Layout) -> dict[str, tuple[Weight, ...]]:
    """A file's names, and the weights that each tensor holds: nearly always one.

    Raises:
        ValueError: the tables give two weights the same numbers, or not all parts of a tensor.
    """
    found: dict[str, tuple[Weight, ...]] = {}
    for weight in weights:
        name = weight.stored(layout)[0]
        found[name] = (*found.get(name, ()), weight)
    for name, sharing in found.items():
        pieces = sorted(weight.piece for weight in sharing) if layout == "ldm" else [(0, 1)] * len(sharing)
        if pieces != [(index, len(sharing)) for index in range(len(sharing))]:
            raise ValueError(f"{name} is not made of {', '.join(weight.name for weight in sharing)}")
    return found
