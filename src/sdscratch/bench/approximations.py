"""What each approximation gains, and how far it leads from the exact picture."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from sdscratch.bench.machine import synchronize
from sdscratch.bench.pictures import distance
from sdscratch.generation.pipeline import Pipeline
from sdscratch.options import ResolvedOptions

__all__ = ["Approximation", "approximations"]

# (its name, the options that ask for it)
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--cfg-interval 0.28:5.42", {"cfg_interval": "0.28:5.42"}),
    ("--deep-cache 2", {"deep_cache": 2}),
    ("--deep-cache 3", {"deep_cache": 3}),
    ("--deep-cache 5", {"deep_cache": 5}),
    ("both, 3", {"cfg_interval": "0.28:5.42", "deep_cache": 3}),
)
PICTURES = 3


@dataclass(frozen=True)
class Approximation:
    """One of them, beside the exact way."""

    name: str
    faster: float  # times: of all steps, or for a preview of the decoding
    psnr: float | None  # dB from the exact pictures, the median; None (infinite) where they are the same


def approximations(pipeline: Pipeline, options: ResolvedOptions) -> Iterator[Approximation]:
    """Measure each on pictures of seeds that count up from the options' own; the first run is not timed."""
    each = [replace(options, seed=options.seed + index) for index in range(PICTURES)]
    denoise(pipeline, options)
    exact = [denoise(pipeline, one) for one in each]
    decoded = [timed(pipeline, lambda latent=latent: pipeline.decode(latent)[0]) for _, latent in exact]
    pictures = [picture for _, picture in decoded]
    for name, changes in KINDS:
        runs = [denoise(pipeline, replace(one, **changes)) for one in each]
        shown = [pipeline.decode(latent)[0] for _, latent in runs]
        yield compared(name, [s for s, _ in exact], [s for s, _ in runs], pictures, shown)
    pipeline.preview(exact[0][1])
    previews = [timed(pipeline, lambda latent=latent: pipeline.preview(latent)[0]) for _, latent in exact]
    seconds = [s for s, _ in decoded], [s for s, _ in previews]
    name = "--preview" if pipeline.taesd is None else "--decoder tiny (--preview with --taesd)"
    yield compared(f"{name}, by a decoding", *seconds, pictures, [picture for _, picture in previews])


def denoise(pipeline: Pipeline, options: ResolvedOptions) -> tuple[float, Any]:
    """Seconds of a picture's steps, and its last latent."""
    steps = pipeline.steps(options)
    next(steps)
    seconds, (*_, last) = timed(pipeline, lambda: list(steps))
    return seconds, last.latent


def timed(pipeline: Pipeline, compute: Any) -> tuple[float, Any]:
    """Seconds, and what was computed."""
    device = pipeline.placement.device
    synchronize(device)
    start = time.perf_counter()
    result = compute()
    synchronize(device)
    return time.perf_counter() - start, result


def compared(
    name: str, exact: list[float], fast: list[float], pictures: list[Image.Image], shown: list[Image.Image]
) -> Approximation:
    """Medians of both."""
    found = [distance(one, other).psnr for one, other in zip(shown, pictures, strict=True)]
    finite = [psnr for psnr in found if psnr is not None]
    psnr = statistics.median(finite) if finite else None
    return Approximation(name, statistics.median(exact) / statistics.median(fast), psnr)
