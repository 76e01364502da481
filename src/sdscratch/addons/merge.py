"""Models made of models: weighted sums, and differences added. No torch here.

    --merge A:0.7,B:0.3              0.7 A + 0.3 B
    --add-difference A,B,C:0.8       A + 0.8 (B − C)

With an inpainting model as A and what it was made from as C, B inpaints: the first convolution may take more
channels than another model's (the masked picture and the mask, after the latent), whose count as 0 there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sdscratch.addons.requests import NUMBER
from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.show import printable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Merged", "open_difference", "open_merged", "parse_difference", "parse_merge"]


class Share(NamedTuple):
    """A model as it is named, and what it is multiplied by."""

    name: str
    factor: float


@dataclass(frozen=True, eq=False)
class Merged:
    """A model's weights times `own`, and others' times their factors: a `checkpoints.changes.Change`."""

    own: float
    others: tuple[tuple[ModelFiles, float], ...]
    what: str = "merged"

    @property
    def name(self) -> str:
        """The other models' names."""
        return "-".join(files.name for files, _ in self.others)

    def apply(self, weight: Weight, tensor: Tensor) -> Tensor:
        """The sum, in float32 (a double stays one)."""
        base = tensor if tensor.dtype.itemsize == 8 else tensor.float()
        total = base * self.own
        for files, factor in self.others:
            other = files.read(_theirs(files, weight)).to(base.dtype)
            here = tuple(slice(side) for side in other.shape)
            if other.shape == total.shape:
                total.add_(other, alpha=factor)
            else:
                total[here].add_(other, alpha=factor)
        return total

    def record(self) -> dict[str, Any]:
        """The models' names, fingerprints and factors."""
        others = [
            {"name": files.name, "hash": files.hash(), "factor": factor} for files, factor in self.others
        ]
        return {"own_factor": self.own, "others": others}


def parse_merge(text: str) -> list[Share]:
    """The meaning of `A:0.7,B:0.3`; equal shares where none has a number. A comma in a name is doubled.

    Raises:
        UsageError: fewer than two models, or shares for some of them only.
    """
    parts = [_share(part, "--merge") for part in _split(text)]
    given = [factor for _, factor in parts if factor is not None]
    if len(parts) < 2:
        raise UsageError(f"--merge {text} names one model; say --merge A:0.7,B:0.3")
    if given and len(given) < len(parts):
        raise UsageError(f"--merge {text} has shares for some models only; give every one its share, or none")
    equal = 1 / len(parts)
    return [Share(name, equal if factor is None else factor) for name, factor in parts]


def parse_difference(text: str) -> tuple[str, str, str, float]:
    """The meaning of `A,B,C[:FACTOR]`: A + FACTOR (B − C).

    Raises:
        UsageError: other than three models, or a number at A or B.
    """
    parts = [_share(part, "--add-difference") for part in _split(text)]
    if len(parts) != 3 or any(factor is not None for _, factor in parts[:2]):
        raise UsageError(
            f"--add-difference {text} must name three models, like A,B,C or A,B,C:0.8 (A + 0.8 (B - C))"
        )
    (a, _), (b, _), (c, factor) = parts
    return a, b, c, 1.0 if factor is None else factor


def _split(text: str) -> list[str]:
    parts = re.split(r"(?<!,),(?!,)", text)
    return [part.replace(",,", ",").strip() for part in parts]


def _share(part: str, option: str) -> tuple[str, float | None]:
    match = re.fullmatch(rf"(.*):({NUMBER})", part, re.DOTALL)
    name, factor = (match[1], float(match[2])) if match else (part, None)
    if not name or not math.isfinite(factor or 0.0):
        raise UsageError(
            f"{option} holds {part!r}, which names no model with a finite share; say A:0.7,B:0.3"
        )
    return name, factor


def open_merged(shares: Sequence[Share], *, ema: bool = False, tokenizer: str | None = None) -> ModelFiles:
    """The weighted sum of models; tokenizer, defaults and metadata are the first one's.

    Raises:
        CheckpointError: as `open_model`, or their shapes differ.
    """
    first, *rest = shares
    files = open_model(first.name, ema=ema, tokenizer=tokenizer)
    return _merged(files, first.factor, [(open_model(share.name, ema=ema), share.factor) for share in rest])


def open_difference(
    a: str, b: str, c: str, factor: float, *, ema: bool = False, tokenizer: str | None = None
) -> ModelFiles:
    """A + factor (B − C); all else is A's.

    Raises:
        CheckpointError: as `open_merged`.
    """
    files, plus, minus = open_model(a, ema=ema, tokenizer=tokenizer), open_model(b), open_model(c)
    return _merged(files, 1.0, [(plus, factor), (minus, -factor)])


def _merged(files: ModelFiles, own: float, others: list[tuple[ModelFiles, float]]) -> ModelFiles:
    for other, _ in others:
        _check(files, other)
    return replace(files, changes=(*files.changes, Merged(own, tuple(others))))


def _check(files: ModelFiles, other: ModelFiles) -> None:
    """Every weight has its like in the other model, or less channels of it in the first convolution."""
    theirs = {(weight.part, weight.name): weight for weight in other.stored}
    for weight in files.stored:
        like = theirs.get((weight.part, weight.name))
        if like is None or not _fits(weight, like):
            told = "none" if like is None else f"{list(like.shape)}"
            raise CheckpointError(
                f"{printable(other.path)} cannot be merged into {printable(files.path)}: of {weight.ldm} "
                f"{list(weight.shape)} it has {told}; the models must be of one shape"
            )


def _fits(weight: Weight, like: Weight) -> bool:
    if weight.shape == like.shape:
        return True
    first = weight.part == "unet" and weight.ldm == "model.diffusion_model.input_blocks.0.0.weight"
    return first and like.shape[0] == weight.shape[0] and like.shape[1] < weight.shape[1]


def _theirs(files: ModelFiles, weight: Weight) -> Weight:
    if weight in files.stored:
        return weight
    return next(each for each in files.stored if (each.part, each.name) == (weight.part, weight.name))
