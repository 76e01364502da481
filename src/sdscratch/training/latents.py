"""Where a step's latents come from: pictures encoded for it, or in blocks that are gone over again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdscratch.models.vae import Encoder
from sdscratch.training.chance import seed_of
from sdscratch.training.machine import Machine
from sdscratch.training.source import RewordingSource, Source

__all__ = ["Encode", "FreshLatents", "LaneLatents", "LatentSource", "Latents", "encode_with"]

PASSES = 8  # over a block
LANE = 64  # pictures of a block, a place


@dataclass(frozen=True)
class Latents:
    """Scaled latents as the U-Net sees them, with their captions."""

    values: Tensor  # [n, c, h, w] float32
    captions: tuple[str, ...]


class LatentSource(Protocol):
    """Gives every step its latents; a function of the step and the places, as a `Source` is."""

    def __call__(self, step: int, places: range) -> Latents:
        """The latents at `places` of step `step`'s batch."""
        ...


Encode = Callable[[Tensor], Tensor]  # pictures → scaled latents, without gradients


def encode_with(encoder: Encoder, scale: float, machine: Machine) -> Encode:
    """The means of an encoder's posteriors, times `scale`."""

    def encode(pictures: Tensor) -> Tensor:
        with torch.no_grad(), machine.autocast():
            mean: Tensor = encoder(pictures).mean
        return mean.float() * scale

    return encode


class FreshLatents:
    """Every step's pictures are encoded for it: what a GPU does in passing."""

    def __init__(self, source: Source, encode: Encode, device: torch.device) -> None:
        self.source, self.encode, self.device = source, encode, device

    def __call__(self, step: int, places: range) -> Latents:
        """The source's pictures, encoded."""
        batch = self.source.batch(step, places, self.device)
        return Latents(self.encode(batch.pictures), batch.captions)


class LaneLatents:
    """Encoding costs next to nothing: each place has a lane of `LANE` pictures, gone over `PASSES` times.

    Each time in another order and, where the source can, in other words; then the lane gets new pictures.
    Those are the ones that the source has for this place in its next steps. Lanes differ in their order, and
    know nothing of each other: so nothing depends on who computes which.
    """

    def __init__(self, source: Source, encode: Encode, device: torch.device, seed: int) -> None:
        self.source, self.encode, self.device, self.seed = source, encode, device, seed
        self.blocks: dict[range, tuple[int, Tensor, list[tuple[str, ...]]]] = {}

    def __call__(self, step: int, places: range) -> Latents:
        """One picture of each place's lane."""
        index, within = divmod(step, PASSES * LANE)
        turn, position = divmod(within, LANE)
        if places not in self.blocks or self.blocks[places][0] != index:
            self.blocks[places] = self._encode(index, places)
        _, values, captions = self.blocks[places]
        chosen = [self._order(place, index, turn)[position] for place in places]
        columns = range(len(places))
        if turn and isinstance(self.source, RewordingSource):
            words = [
                self.source.caption(LANE * index + row, place, turn)
                for place, row in zip(places, chosen, strict=True)
            ]
        else:
            words = [captions[row][column] for column, row in zip(columns, chosen, strict=True)]
        return Latents(values[chosen, list(columns)], tuple(words))

    def _order(self, place: int, index: int, turn: int) -> list[int]:
        order = list(range(LANE))
        random.Random(seed_of(self.seed, "order", index, turn, place)).shuffle(order)
        return order

    def _encode(self, index: int, places: range) -> tuple[int, Tensor, list[tuple[str, ...]]]:
        """Block `index` of the lanes: latents [LANE, places, c, h, w], and captions likewise."""
        values, captions = [], []
        for step in range(LANE * index, LANE * (index + 1)):
            batch = self.source.batch(step, places, self.device)
            values.append(self.encode(batch.pictures))
            captions.append(batch.captions)
        return index, torch.stack(values), captions
