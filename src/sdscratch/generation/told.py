"""A prompt's text as the U-Net is told it."""

from __future__ import annotations

from dataclasses import dataclass

from sdscratch.addons.embedding import Embedding
from sdscratch.models.conditioning import Conditioning
from sdscratch.text.prompt import selected
from sdscratch.text.reading import PlannedPart

__all__ = ["ToldPart"]


@dataclass(frozen=True)
class ToldPart:
    """One of the texts that AND joins, encoded: what the network is told of it at each evaluation."""

    planned: PlannedPart
    conditionings: tuple[Conditioning, ...]  # one a stage
    embeddings: tuple[Embedding, ...]  # those whose vectors stand in it

    @property
    def weight(self) -> float:
        """How hard it pulls."""
        return self.planned.weight

    @property
    def changes(self) -> bool:
        """Whether it is another in the course of the picture."""
        return len(self.conditionings) > 1

    def at(self, evaluation: int) -> Conditioning:
        """What is told at an evaluation of the network, counted from 0."""
        return self.conditionings[selected(self.planned.stages, evaluation)]  # type: ignore[arg-type]
