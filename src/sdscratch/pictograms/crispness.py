"""How crisp pictures are, beside renders: flat where it should be flat, sharp at edges, and alike as a whole.

Pictograms are flat colours within sharp edges. What a decoder makes of that is seen in three figures of a
picture, in levels of 255 as files hold them, and in one figure of many pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.pictograms.judge import Judge

__all__ = ["Crispness", "Looks", "crispness", "flat", "frechet_distance", "ground", "levels", "summary"]

FLAT = 6  # levels: how far the values of one channel may be apart in a flat neighbourhood of 3×3
OFF_GROUND = 40  # levels, summed over channels: a pixel farther than that from the ground is of the thing
SHARPEST = 0.99  # of a picture's horizontal steps, this share is below its gradient


@dataclass(frozen=True)
class Crispness:
    """Of one picture, or a summary of many."""

    flat: float  # share of pixels with a flat neighbourhood
    flat_inside: float  # the same of the thing's pixels alone; NaN where all is ground
    gradient: float  # levels, summed over channels: the 99th percentile of steps from a pixel to the next


def levels(pictures: Tensor) -> Tensor:
    """[n, 3, H, W] in −1 to 1 → whole numbers of 0 to 255, as float32: what a file would hold."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round()


def flat(pictures: Tensor) -> Tensor:
    """[n, 3, H, W] levels → [n, H−2, W−2], whether no channel varies by more than FLAT in a pixel's 3×3.

    Pixels at the border, which have no such neighbourhood, are left out.
    """
    spread = F.max_pool2d(pictures, 3, stride=1) + F.max_pool2d(-pictures, 3, stride=1)
    return spread.amax(dim=1) <= FLAT


def ground(pictures: Tensor) -> Tensor:
    """[n, 3, H, W] levels → [n, 3], the median of each channel along the picture's border."""
    rows, columns = pictures[:, :, [0, -1]].flatten(2), pictures[:, :, 1:-1, [0, -1]].flatten(2)
    return torch.cat([rows, columns], dim=2).median(dim=2).values


def crispness(pictures: Tensor) -> list[Crispness]:
    """The figures of n pictures, [n, 3, H, W] in −1 to 1, each side of at least 3 pixels."""
    whole = levels(pictures)
    still = flat(whole)
    off = (whole - ground(whole)[:, :, None, None]).abs().sum(dim=1)[:, 1:-1, 1:-1] > OFF_GROUND
    steps = whole.diff(dim=3).abs().sum(dim=1).flatten(1)
    gradients = steps.quantile(SHARPEST, dim=1)
    inside = (still & off).flatten(1).sum(1) / off.flatten(1).sum(1)  # 0 / 0 is NaN
    figures = torch.stack([still.flatten(1).float().mean(1), inside, gradients], dim=1)
    return [Crispness(*row) for row in figures.tolist()]


def summary(each: Iterable[Crispness]) -> Crispness:
    """Of many pictures: the mean shares, and the median of the gradients (one odd picture says nothing)."""
    rows = torch.tensor([list(asdict(one).values()) for one in each], dtype=torch.float64)
    return Crispness(float(rows[:, 0].mean()), float(rows[:, 1].nanmean()), float(rows[:, 2].quantile(0.5)))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    Args:
        first, second: features, [n, d] and [m, d]; at least two of each, and of many more than d the figure
            depends little on how many.
    """
    a, b = first.double(), second.double()
    distance = (a.mean(0) - b.mean(0)).square().sum()
    one, other = torch.cov(a.T), torch.cov(b.T)
    # (Σ₁ Σ₂)^½ has the trace of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric: no complex roots of rounding errors
    root = _root(one)
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return float(distance + one.trace() + other.trace() - 2 * cross)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


class Looks:
    """What many pictures look like to the eye and to the judge, gathered as they come."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.each: list[Crispness] = []
        self.features: list[Tensor] = []

    def add(self, pictures: Tensor) -> None:
        """Take in n pictures, [n, 3, H, W] in −1 to 1."""
        self.each += crispness(pictures)
        self.features.append(self.judge.features(pictures))

    def beside(self, renders: Looks) -> dict[str, Any]:
        """The figures of both as plain data, and how far they are apart; None is what cannot be said."""
        several = min(len(self.each), len(renders.each)) > 1
        return {
            "pictures": len(self.each),
            "drawn": self._figures(),
            "renders": renders._figures(),
            "frechet_distance": frechet_distance(torch.cat(self.features), torch.cat(renders.features))
            if several
            else None,
        }

    def _figures(self) -> dict[str, float | None]:
        figures: dict[str, float] = asdict(summary(self.each))
        return {name: None if math.isnan(value) else value for name, value in figures.items()}
