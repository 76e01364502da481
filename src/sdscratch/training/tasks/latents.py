"""Where a step's latents come from: pictures encoded for it, or in blocks that are gone over again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdscratch.models.vae import Encoder
from sdscratch.training.dataset.source import Latents, RewordingSource, Source
from sdscratch.training.engine.distributed import Machine
from sdscratch.training.engine.rng import seed_of

__all__ = ["Encode", "FreshLatents", "LaneLatents", "encode_with"]

PASSES = 8  # over a block
# Pictures of a block, a place. With 64 the loss fell by 8 % within a block, to rise again with the next.
LANE = 512


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

    They are the pictures that the source has for this place in its next steps; each is encoded when it is
    first shown, by itself (in a batch its last bits would be others, and a run that goes on would differ),
    then shown again, each time in another order and, where the source can, in other words. Then the lane
    gets new pictures. Lanes know nothing of each other: so nothing depends on who computes which.
    """

    def __init__(self, source: Source, encode: Encode, device: torch.device, seed: int) -> None:
        self.source, self.encode, self.device, self.seed = source, encode, device, seed
        self.lanes: dict[int, Lane] = {}  # of places

    def __call__(self, step: int, places: range) -> Latents:
        """One picture of each place's lane."""
        index, within = divmod(step, PASSES * LANE)
        turn, position = divmod(within, LANE)
        values, words = [], []
        for place in places:
            lane = self.lanes.get(place)
            if lane is None or lane.index != index:
                lane = self.lanes[place] = Lane(index)
            if lane.turn != turn:
                lane.turn, lane.order = turn, self._order(place, index, turn)
            row = lane.order[position]
            if row not in lane.rows:
                batch = self.source.batch(LANE * index + row, range(place, place + 1), self.device)
                lane.rows[row] = self.encode(batch.pictures)[0], batch.captions[0]
            value, text = lane.rows[row]
            if turn and isinstance(self.source, RewordingSource):
                text = self.source.caption(LANE * index + row, place, turn)
            values.append(value)
            words.append(text)
        return Latents(torch.stack(values), tuple(words))

    def _order(self, place: int, index: int, turn: int) -> list[int]:
        order = list(range(LANE))
        random.Random(seed_of(self.seed, "order", index, turn, place)).shuffle(order)
        return order


@dataclass
class Lane:
    """What a place shows for a while."""

    index: int  # of the block
    turn: int = -1  # how often it has been gone over before
    order: Sequence[int] = ()
    rows: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # latents [c, h, w] and captions
