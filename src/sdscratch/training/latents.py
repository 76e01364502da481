"""Where a step's latents come from: pictures encoded for it, or in blocks that are gone over again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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
LANE = (
    512  # pictures of a block, a place: with 64 the loss fell by 8 % within a block, and rose with the next
)


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

    They are the pictures that the source has for this place in its next steps; encoded when they are first
    shown, then shown again, each time in another order and, where the source can, in other words. Then the
    lane gets new pictures. Lanes know nothing of each other: so nothing depends on who computes which.
    """

    def __init__(self, source: Source, encode: Encode, device: torch.device, seed: int) -> None:
        self.source, self.encode, self.device, self.seed = source, encode, device, seed
        self.blocks: dict[range, tuple[int, dict[int, Latents]]] = {}  # of places: which block; its rows
        self.orders: dict[int, tuple[tuple[int, int], Sequence[int]]] = {}  # of places: of which turn

    def __call__(self, step: int, places: range) -> Latents:
        """One picture of each place's lane."""
        index, within = divmod(step, PASSES * LANE)
        turn, position = divmod(within, LANE)
        if places not in self.blocks or self.blocks[places][0] != index:
            self.blocks[places] = index, {}
        _, rows = self.blocks[places]
        chosen = [self._order(place, index, turn)[position] for place in places]
        for row in {*chosen} - {*rows}:
            batch = self.source.batch(LANE * index + row, places, self.device)
            rows[row] = Latents(self.encode(batch.pictures), batch.captions)
        values = torch.stack([rows[row].values[column] for column, row in enumerate(chosen)])
        if turn and isinstance(self.source, RewordingSource):
            words = [
                self.source.caption(LANE * index + row, place, turn)
                for place, row in zip(places, chosen, strict=True)
            ]
        else:
            words = [rows[row].captions[column] for column, row in enumerate(chosen)]
        return Latents(values, tuple(words))

    def _order(self, place: int, index: int, turn: int) -> Sequence[int]:
        if not turn:  # as they come: a row of all lanes at a time is encoded
            return range(LANE)
        if place not in self.orders or self.orders[place][0] != (index, turn):
            order = list(range(LANE))
            random.Random(seed_of(self.seed, "order", index, turn, place)).shuffle(order)
            self.orders[place] = (index, turn), order
        return self.orders[place][1]
