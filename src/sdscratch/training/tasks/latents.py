"""Where a step's latents come from: a cache, pictures encoded for it, or a replay buffer of encoded ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdscratch.hardware import device_kind
from sdscratch.models.vae import Encoder
from sdscratch.training.dataset.cache import CachedLatents
from sdscratch.training.dataset.folder_source import Ahead, FolderSource, Levels, to_tensor
from sdscratch.training.dataset.plan import View
from sdscratch.training.dataset.source import Latents, LatentSource, RewordingSource, Source
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.rng import seed_of
from sdscratch.training.tasks.autoencoder_files import AutoencoderFiles

__all__ = ["Encode", "FreshLatents", "HintedLatents", "ReplayLatents", "encode_with", "latents_of"]

PASSES = 8  # over a buffer
# Pictures of a buffer. With 64 the loss fell by 8 % while one was gone over, to rise again with the next.
BUFFER = 512


Encode = Callable[[Tensor], Tensor]  # pictures → scaled latents, without gradients


def encode_with(encoder: Encoder, scale: float, distributed: DistributedContext) -> Encode:
    """The means of an encoder's posteriors, times `scale`."""

    def encode(pictures: Tensor) -> Tensor:
        with torch.no_grad(), distributed.autocast():
            mean: Tensor = encoder(pictures).mean
        return mean.float() * scale

    return encode


def latents_of(
    source: FolderSource,
    autoencoder: AutoencoderFiles,
    distributed: DistributedContext,
    cache: Path,
    seed: int,
    hint: Callable[[View], Levels] | None = None,
) -> LatentSource:
    """From a cache where views never change, else encoded as they come; on a CPU, each a few times over.

    With hints, those that come are encoded once each.
    """
    scale = autoencoder.config.latent_scale
    device = distributed.device

    def load_encoder() -> Encoder:
        encoder = autoencoder.load("encoder", distributed.device)
        assert isinstance(encoder, Encoder)
        return encoder

    if source.fixed_views:
        kept = CachedLatents(source, load_encoder, autoencoder.config, cache, distributed.device)
        kept.fill(distributed.rank, distributed.processes)
        distributed.agree(0.0)  # all wait until all is there
        return kept if hint is None else HintedLatents(source, hint, kept, unused, device)
    encode = encode_with(load_encoder(), scale, distributed)
    if hint is not None:
        return HintedLatents(source, hint, None, encode, device)
    if device_kind(distributed.device) == "cpu" and len(source.plan.buckets) == 1:
        return ReplayLatents(source, encode, distributed.device, seed)
    return FreshLatents(source, encode, distributed.device)


def unused(pictures: Tensor) -> Tensor:
    """Stands for an encoder where all is encoded already."""
    raise AssertionError


class HintedLatents:
    """The latents of a folder's pictures, each with the hint of the very view.

    Args:
        source: the folder.
        hint: a view → its hint's pixels, [H, W, 3].
        kept: the latents where they are kept; None: pictures are cropped at random, and encoded as they come.
    """

    def __init__(
        self,
        source: FolderSource,
        hint: Callable[[View], Levels],
        kept: CachedLatents | None,
        encode: Encode,
        device: torch.device,
    ) -> None:
        self.source, self.hint, self.kept, self.encode, self.device = source, hint, kept, encode, device
        self.ahead = Ahead(self._made, source.threads)

    def __call__(self, step: int, indices: range) -> Latents:
        """Latents and hints at `indices` of step `step`'s batch.

        Raises:
            ImageError: all pictures of a bucket, or their hints, are broken.
        """
        found = self.ahead(step, indices)
        captions = tuple(self.source.caption(view) for view, _ in found)
        pictures, hints = zip(*(made for _, made in found), strict=True)
        levels = to_tensor(hints, self.device)
        if self.kept is None:
            values = self.encode(to_tensor(pictures, self.device))
        else:
            values = torch.stack(pictures).to(self.device) * self.kept.scale
        return Latents(values, captions, (levels + 1.0) / 2.0)

    def _made(self, step: int, index: int) -> tuple[View, tuple[Any, Levels]]:
        picture: Callable[[View], Any] = self.source.levels if self.kept is None else self.kept.mean
        view = self.source.plan.view(step, index)
        return self.source.sound(view, lambda each: (picture(each), self.hint(each)))


class FreshLatents:
    """Every step's pictures are encoded for it: what a GPU does in passing."""

    def __init__(self, source: Source, encode: Encode, device: torch.device) -> None:
        self.source, self.encode, self.device = source, encode, device

    def __call__(self, step: int, indices: range) -> Latents:
        """The source's pictures, encoded."""
        batch = self.source.batch(step, indices, self.device)
        return Latents(self.encode(batch.pictures), batch.captions)


class ReplayLatents:
    """Encoding costs next to nothing: each index of a batch has a replay buffer, gone over `PASSES` times.

    A buffer holds the pictures that the source has for this index in its next `BUFFER` steps; each is encoded
    when it is first shown, by itself (in a batch its last bits would be others, and a run that goes on would
    differ), then shown again, each time in another order and, where the source can, in other words. Then the
    buffer gets new pictures. Buffers know nothing of each other: so nothing depends on who computes which.
    """

    def __init__(self, source: Source, encode: Encode, device: torch.device, seed: int) -> None:
        self.source, self.encode, self.device, self.seed = source, encode, device, seed
        self.buffers: dict[int, ReplayBuffer] = {}  # by index

    def __call__(self, step: int, indices: range) -> Latents:
        """One picture of each index's buffer."""
        filling, within = divmod(step, PASSES * BUFFER)
        turn, position = divmod(within, BUFFER)
        values, words = [], []
        for index in indices:
            buffer = self.buffers.get(index)
            if buffer is None or buffer.filling != filling:
                buffer = self.buffers[index] = ReplayBuffer(filling)
            if buffer.turn != turn:
                buffer.turn, buffer.order = turn, self._order(index, filling, turn)
            row = buffer.order[position]
            if row not in buffer.rows:
                batch = self.source.batch(BUFFER * filling + row, range(index, index + 1), self.device)
                buffer.rows[row] = self.encode(batch.pictures)[0], batch.captions[0]
            value, text = buffer.rows[row]
            if turn and isinstance(self.source, RewordingSource):
                text = self.source.caption(BUFFER * filling + row, index, turn)
            values.append(value)
            words.append(text)
        return Latents(torch.stack(values), tuple(words))

    def _order(self, index: int, filling: int, turn: int) -> list[int]:
        order = list(range(BUFFER))
        random.Random(seed_of(self.seed, "order", filling, turn, index)).shuffle(order)
        return order


@dataclass
class ReplayBuffer:
    """What one index shows for a while."""

    filling: int  # how often its pictures have been replaced by new ones
    turn: int = -1  # how often it has been gone over before
    order: Sequence[int] = ()
    rows: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # latents [c, h, w] and captions
