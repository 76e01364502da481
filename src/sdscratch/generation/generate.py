"""Many pictures from one model, told of as they come: what every command and every call from Python runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from sdscratch.addons.apply import AppliedLora, applied_loras, with_loras
from sdscratch.addons.embedding import Embedding
from sdscratch.addons.requests import LoraRequest, other_tags, take_loras
from sdscratch.checkpoints.hashing import autov3, hash_files
from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.checkpoints.tiny import TinyAutoencoder
from sdscratch.device import Placement
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.hires import upscaler_record
from sdscratch.generation.requests import (
    Advanced,
    Event,
    Failed,
    Picture,
    Progress,
    Request,
    Started,
    numbered,
)
from sdscratch.hardware import device_kind
from sdscratch.images import AddonRecord, LoraRecord, Record, parse_colour
from sdscratch.options import ResolvedOptions
from sdscratch.show import printable

__all__ = ["Model", "drawn", "generate", "generator"]

log = logging.getLogger(__name__)


class Model(Protocol):
    """What draws: a `pipeline.Pipeline`, whose methods say more."""

    @property
    def files(self) -> ModelFiles: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def loras(self) -> tuple[AppliedLora, ...]: ...
    @property
    def tags(self) -> tuple[LoraRequest, ...]: ...
    @property
    def embeddings(self) -> tuple[Embedding, ...]: ...
    def adopt_loras(self, prompt: str) -> None: ...
    def parts_for(self, options: ResolvedOptions, *, from_init: bool = False) -> tuple[Part, ...]: ...
    def load(self, parts: Iterable[Part]) -> Iterator[Part]: ...
    def latents(
        self, request: Request, seeds: Sequence[int], variations: Sequence[int] = ()
    ) -> Iterator[Progress]: ...
    @property
    def tiny(self) -> TinyAutoencoder: ...
    def decode(self, latents: Tensor, tile: int | None = None, *, tiny: bool = False) -> list[Image]: ...
    def model_hash(self) -> str: ...


def generate(pipeline: Model, requests: Iterable[Request], *, batch_size: int = 1) -> Iterator[Event]:
    """Draw every request, and yield what happens: stages, steps, pictures, failures.

    A request that fails is told of, and the next one is tried; whoever wants to stop stops iterating.

    Args:
        batch_size: how many requests that follow each other, and differ in their seeds alone, are drawn at
            once.
    """
    yield from _Generation(pipeline).all(requests, batch_size)


def generator(pipeline: Model) -> Callable[[Iterable[Request], int], Iterator[Event]]:
    """`generate` for requests that come a few at a time: what is loaded stays, and is told of once.

    Returns:
        What takes the next requests, and the size of batches.
    """
    return _Generation(pipeline).all


def drawn(pipeline: Model, request: Request, count: int | None, size: int) -> Image | list[Image]:
    """A list of `count` pictures of a request, `size` at once; without a count, one picture by itself.

    Raises:
        SdscratchError: the first picture that failed says why.
    """
    wanted = 1 if count is None else count
    if min(wanted, size) < 1:
        raise UsageError(f"batch_count is {wanted} and batch_size {size}, but both must be at least 1")
    pictures: list[Image] = []
    for event in generate(pipeline, numbered(request, wanted), batch_size=size):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Picture):
            pictures.append(event.image)
    return pictures[0] if count is None else pictures


class _Generation:
    """One run through requests."""

    def __init__(self, pipeline: Model) -> None:
        self.pipeline = pipeline
        self.timings: dict[str, float] = {}  # seconds, of the newest batch
        self.loaded = False
        self.told: set[str] = set()  # tags that were warned of
        self.made = 0  # pictures, of the batch in hand

    def all(self, requests: Iterable[Request], size: int) -> Iterator[Event]:
        """Every batch in turn."""
        first = 0
        for batch in batches(requests, size):
            self.made = 0
            try:
                yield from self.batch(batch, first)
            except SdscratchError as error:
                yield Failed(first + self.made, tuple(batch[self.made :]), error)
            first += len(batch)

    def batch(self, batch: Sequence[Request], first: int) -> Iterator[Event]:
        """Pictures that are drawn at once."""
        options = batch[0].options
        tags = take_loras(options.prompt)[1]
        for tag in other_tags(f"{options.prompt}\n{options.negative_prompt}"):
            if tag not in self.told:
                self.told.add(tag)
                log.warning("the tag %s is none that is known here; it is read as words", printable(tag))
        if not self.loaded or tags != self.pipeline.tags:
            yield from self.load(batch[0], first, len(batch))
        seeds = [each.options.seed for each in batch]
        variations = [each.options.variation_seed or 0 for each in batch]
        steps = self.pipeline.latents(batch[0], seeds, variations)
        yield Started("encode", None, first, len(batch))
        with self.timed("encode"):
            last = next(steps)  # the prompts and the init picture are encoded before it
        if last.total:
            yield Started("denoise", last.total, first, len(batch))
            with self.timed("denoise"):
                for last in steps:
                    yield last
        yield from self.decode(batch, first, last)

    def load(self, request: Request, first: int, count: int) -> Iterator[Event]:
        """Load the networks that the task needs."""
        self.pipeline.adopt_loras(request.options.prompt)
        parts = self.pipeline.parts_for(request.options, from_init=request.init is not None)
        if "text" in parts:
            _ = self.pipeline.files.tokenizer  # a missing one is said before gigabytes are loaded
        yield Started("load", len(parts), first, count)
        with self.timed("load"):
            for done, _ in enumerate(self.pipeline.load(parts), start=1):
                yield Advanced(done)
        self.loaded = True

    def decode(self, batch: Sequence[Request], first: int, last: Progress) -> Iterator[Event]:
        """One picture after another: each is told of as soon as it is there."""
        for index, (request, latent) in enumerate(zip(batch, last.latent.split(1), strict=True), start=first):
            yield Started("decode", 1, index, 1)
            with self.timed("decode"):
                options = request.options
                (image,) = self.pipeline.decode(latent, options.tile, tiny=options.decoder == "tiny")
                if request.init is not None and request.init.repaint is not None:
                    image = request.init.repaint.finished(image)
            yield Advanced(1)
            self.made += 1
            yield Picture(index, request, image, recorder(self.pipeline, request), dict(self.timings))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Remember how long a stage took."""
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start


def batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Requests that can be drawn at once, at most `size` of them, in their order."""
    batch: list[Request] = []
    for request in requests:
        if batch and (len(batch) == size or not request.joins(batch[0])):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def vae_record(files: ModelFiles) -> AddonRecord | None:
    """The VAE in the place of the model's own, if there is one."""
    paths = list(dict.fromkeys(stored.file.path for stored in files.exchanged.values()))
    if not paths:
        return None
    return AddonRecord(paths[0].stem, hash_files(paths), autov3(paths[0]) if len(paths) == 1 else None)


def threads_of(placement: Placement) -> int | None:
    """How many threads the CPU draws with; on a GPU they change nothing."""
    return torch.get_num_threads() if device_kind(placement.device) == "cpu" else None


def embedding_record(embedding: Embedding) -> AddonRecord:
    """A textual inversion by name and hashes."""
    return AddonRecord(embedding.name, embedding.digest()[:12], autov3(embedding.path))


def told_colour(background: str) -> str | None:
    """A background as records say it: nothing for white."""
    return None if parse_colour(background) == parse_colour("white") else background


def loras_of_both(pipeline: Model, options: ResolvedOptions) -> tuple[AppliedLora, ...]:
    """The LoRAs that a picture was made with, those of a second pass's own prompt last."""
    if options.hires is None or options.hires_prompt is None:
        return pipeline.loras
    first = applied_loras(with_loras(pipeline.files, take_loras(options.prompt)[1]))
    return (*first, *(each for each in pipeline.loras if each not in first))


def tiny_record(tiny: TinyAutoencoder) -> AddonRecord:
    """The tiny autoencoder in the place of the model's own."""
    return AddonRecord(tiny.name, tiny.hash)


def recorder(pipeline: Model, request: Request) -> Callable[[], Record]:
    """What makes a picture's record, with the model and the LoRAs as they are now."""
    placement, name = pipeline.placement, pipeline.files.name
    given, applied = len(applied_loras(pipeline.files)), loras_of_both(pipeline, request.options)
    upscaler, init = upscaler_record(request.options), request.init
    embeddings, files = pipeline.embeddings, pipeline.files
    options = request.options
    if upscaler is not None:  # its name, no path
        options = replace(options, hires_upscaler=upscaler.name)
    threads = threads_of(placement)

    def record() -> Record:
        loras = tuple(
            LoraRecord(**lora.record(), tagged=index >= given, autov3=autov3(lora.lora.path))
            for index, lora in enumerate(applied)
        )
        return Record(
            mode="txt2img" if init is None else "img2img",
            options=options,
            model=name,
            model_hash=pipeline.model_hash(),
            dtype=placement.dtype_name,
            device=device_kind(placement.device),
            loras=loras or None,
            embeddings=tuple(embedding_record(each) for each in embeddings) or None,
            vae=vae_record(files),
            controls=tuple(each.record() for each in request.controls) or None,
            upscaler=upscaler if init is None else init.upscaler,
            taesd=tiny_record(pipeline.tiny) if request.options.decoder == "tiny" else None,
            fit=None if init is None else init.fit,
            init_hash=None if init is None else init.hash,
            mask=None if init is None or init.repaint is None else init.repaint.record,
            background=None if init is None else told_colour(init.background),
            threads=threads,
            compiled=placement.compiled or None,
            template=request.template,
        )

    return record
