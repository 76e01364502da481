"""Predictions that are known already: variants that differ only later have their first steps computed once.

Their samplers run all the same, each with its own noise and its own memory; but what they ask the network is
looked up by everything that it is asked with. What is the same to the bit has the same answer: so a sampler
of any kind gives the very picture that it gives alone, and none has to be resumed in the middle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from hashlib import blake2b
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sdscratch.models.conditioning import Conditioning

__all__ = ["MOST_KEPT", "Predictions"]

MOST_KEPT = 2**27  # bytes: 34 pictures of 512×512, 30 steps and guidance


class Predictions:
    """What a U-Net predicted, by its weights and all that it was given; the newest are kept.

    Args:
        most: bytes that are kept at most.

    Attributes:
        found: how often the network was not asked.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most = most
        self.found = 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()  # the newest last
        self._bytes = 0
        self._numbers: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # of controls' networks
        self._next = count()

    def __call__(
        self,
        weights: Hashable,
        x: Tensor,
        timesteps: Tensor,
        told: Conditioning,
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """compute(), or what it gave when it was asked the same.

        Args:
            weights: tells the network's weights, and what it does otherwise, from all others.
            x, timesteps, told: what the network is given, as of `guidance.Network`.
        """
        key = weights, self._numbered(told.kind), digest(x, timesteps, *told.tensors())
        known = self._kept.get(key)
        if known is None:
            known = compute()
            self._keep(key, known.clone())  # what a recorded graph gives is written over at the next step
            return known
        self._kept.move_to_end(key)
        self.found += 1
        return known.clone()

    def _keep(self, key: Hashable, prediction: Tensor) -> None:
        self._kept[key] = prediction
        self._bytes += prediction.nbytes
        while self._bytes > self.most:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _numbered(self, kind: Any) -> Hashable:
        """The same with a number for each network, which no other ever has; none is kept alive by it."""
        if isinstance(kind, nn.Module):
            if kind not in self._numbers:
                self._numbers[kind] = next(self._next)
            return "network", self._numbers[kind]
        return tuple(map(self._numbered, kind)) if isinstance(kind, tuple) else kind


def digest(*tensors: Tensor | None) -> bytes:
    """What tells tensors from all others of other bits, shapes or precisions."""
    made = blake2b(digest_size=32)
    for each in tensors:
        if each is None:
            made.update(b"none")
            continue
        made.update(f"{each.dtype} {tuple(each.shape)} ".encode())
        made.update(each.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.digest()
