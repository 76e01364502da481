"""A source of small pictures that needs no file, and a context to train in."""

from __future__ import annotations

import random

import torch

from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.dataset.source import Batch
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.rng import seed_of

__all__ = ["COLOURS", "CPU", "TOKENIZER", "Squares"]

CPU = DistributedContext(torch.device("cpu"))
TOKENIZER = Tokenizer.from_merges([], length=12)
COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


class Squares:
    """Coloured squares on white, somewhere; each says its index, so that no two captions are the same."""

    def __init__(self, seed: int = 0, size: int = 16) -> None:
        self.seed, self.size = seed, size

    def batch(self, step: int, indices: range, device: torch.device) -> Batch:
        return self._drawn([(self.seed, step, index) for index in indices], device)

    def held_out(self, count: int, device: torch.device) -> Batch:
        return self._drawn([("held out", index) for index in range(count)], device)

    def _drawn(self, names: list[tuple[int | str, ...]], device: torch.device) -> Batch:
        pictures = torch.ones(len(names), 3, self.size, self.size)
        captions = []
        for picture, name in zip(pictures, names, strict=True):
            rng = random.Random(seed_of(*name))
            colour = rng.choice(list(COLOURS))
            x, y = (rng.randrange(self.size // 2) for _ in range(2))
            half = self.size // 2
            picture[:, y : y + half, x : x + half] = torch.tensor(COLOURS[colour])[:, None, None]
            captions.append(f"{colour} {x} {y} {name}")
        return Batch(pictures.to(device), tuple(captions))
