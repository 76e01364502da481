"""What a kind of LoRA is. torch is not imported here.

A file's tensors for one module have roles (`lora_names`); a kind knows by their shapes whether they fit a
weight, and by their values what becomes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Kind", "Operands", "Shape", "Shapes", "is_product", "matrix", "same", "squeezed"]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # of a module's tensors, by role


@dataclass(frozen=True)
class Operands:
    """A module's tensors by role, in the type of the weight they change, and its numbers."""

    tensors: Mapping[str, Tensor]
    alpha: float | None  # as the file has it
    scale: float  # what a sum is multiplied by: alpha / rank, 1 where there is none

    def __getitem__(self, role: str) -> Tensor:
        return self.tensors[role]

    def __contains__(self, role: str) -> bool:
        return role in self.tensors


@dataclass(frozen=True)
class Kind:
    """One kind of LoRA.

    A kind that adds has `delta`, (operands, weight) → ΔW before scale and strength; any other has `turned`,
    (operands, weight, strength) → W'.
    """

    name: str
    forms: tuple[frozenset[str], ...]  # the roles that must be there: all of one of these
    fits: Callable[[Shapes, Shape], bool]  # whether they make a weight of that shape
    rank: Callable[[Shapes], int | None] = lambda shapes: None
    delta: Callable[[Operands, Tensor], Tensor] | None = None
    turned: Callable[[Operands, Tensor, float], Tensor] | None = None
    optional: frozenset[str] = frozenset()

    @property
    def roles(self) -> frozenset[str]:
        """Every role that is this kind's alone."""
        return frozenset[str]().union(*self.forms, self.optional)


def squeezed(shape: Shape) -> Shape:
    """A 1×1 convolution is a matrix."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def same(one: Shape, other: Shape) -> bool:
    """Whether they are the same numbers in the same order, but for sides of 1 behind."""
    return squeezed(one) == squeezed(other)


def matrix(shape: Shape) -> Shape:
    """A weight as a matrix: outputs, and everything that makes one."""
    return (shape[0], math.prod(shape[1:])) if shape else ()


def is_product(left: Shape, right: Shape, shape: Shape) -> bool:
    """Whether left · right, as matrices, is a weight of that shape, and something is between them."""
    if len(left) < 2 or len(right) < 2:
        return False
    (rows, inner), (other, columns) = matrix(left), matrix(right)
    return inner == other > 0 and (rows, columns) == matrix(shape)
