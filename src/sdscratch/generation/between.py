"""Between two prompts: what the network is told on the way from the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdscratch.errors import UsageError
from sdscratch.generation.told import ToldPart
from sdscratch.models.conditioning import Conditioning
from sdscratch.text.prompt import selected
from sdscratch.text.reading import PlannedStage

__all__ = ["between", "on_the_way"]

NEARLY_PARALLEL = 1e-4  # the sine below which a great circle is a line


def between(
    one: Sequence[ToldPart], other: Sequence[ToldPart], share: float, filler: Tensor
) -> tuple[ToldPart, ...]:
    """The parts of two prompts mixed, each token along the great circle between both (Shoemake 1985).

    Args:
        share: of the other, 0 to 1.
        filler: [1, t, d], the empty prompt's context, with which the shorter one is filled up.

    Raises:
        UsageError: AND joins another number of texts in the one than in the other.
    """
    if len(one) != len(other):
        raise UsageError(
            f"one of the film's prompts has {len(one)} texts joined by AND, the other {len(other)}; "
            "let both have as many"
        )
    return tuple(_mixed(a, b, share, filler) for a, b in zip(one, other, strict=True))


def _mixed(one: ToldPart, other: ToldPart, share: float, filler: Tensor) -> ToldPart:
    """Two texts; where they are edited, through all stages of both."""
    ends = sorted({stage.end for part in (one, other) for stage in part.planned.stages})
    stages, told = [], []
    for end in ends:
        chosen = one.planned.stages[selected(one.planned.stages, end)]  # type: ignore[arg-type]
        stages.append(PlannedStage(end, chosen.text, chosen.chunks))
        contexts = _as_long(one.at(end).context, other.at(end).context, filler)
        told.append(Conditioning(on_the_way(share, *contexts)))
    weight = one.weight + share * (other.weight - one.weight)
    planned = replace(one.planned, weight=weight, stages=tuple(stages))
    return ToldPart(planned, tuple(told), tuple(dict.fromkeys((*one.embeddings, *other.embeddings))))


def _as_long(one: Tensor, other: Tensor, filler: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts [1, t, d], the shorter one filled up."""
    longest = max(one.shape[1], other.shape[1])

    def filled(context: Tensor) -> Tensor:
        count = (longest - context.shape[1]) // filler.shape[1]
        return torch.cat([context, *[filler] * count], dim=1)

    return filled(one), filled(other)


def on_the_way(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Vectors (the last dimension) between others, each along its great circle.

    Those that are nearly parallel, as every prompt's first one is, are mixed along the line between them.
    """
    cosine = torch.cosine_similarity(low, high, dim=-1).clamp(-1.0, 1.0)[..., None]
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    line = sine < NEARLY_PARALLEL
    sine = torch.where(line, 1.0, sine)
    of_low = torch.where(line, 1.0 - share, torch.sin((1.0 - share) * angle) / sine)
    of_high = torch.where(line, share, torch.sin(share * angle) / sine)
    return of_low * low + of_high * high
