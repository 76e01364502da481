"""Which noise starts a picture, and which its sampler gets, as a tool draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdscratch.diffusion import catalogue
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.noise.brownian import BrownianNoise
from sdscratch.diffusion.noise.seeded import BatchNoise, Kind, Noise
from sdscratch.diffusion.samplers.types import NoiseSource

__all__ = ["noise_sources"]


def noise_sources(
    sampler: str,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    shape: tuple[int, ...],
    *,
    like: str = "sdscratch",
    kind: Kind | None = None,
    **variation: Any,
) -> tuple[NoiseSource, NoiseSource]:
    """What the start noise is drawn from, and what a sampler draws from.

    Where both are one source, the sampler's draws follow the start's.

    Args:
        sampler: a name of `catalogue.SAMPLERS`.
        sigmas: the levels that it visits.
        seeds: one a picture.
        shape: of one picture's noise.
        like: a name of `conventions.CONVENTIONS`.
        kind: whose numbers; by default the tool's.
        variation: `variation_seeds`, `variation_strength`, `ensd` and `resize_from`, as of `Noise`.
    """
    convention = convention_of(like)
    batch = convention.draws == "batch"
    start: NoiseSource
    if batch and not variation and kind in (None, "cpu"):
        start = BatchNoise(seeds[0], len(seeds), shape)
    else:
        start = Noise(seeds, shape, kind=kind or convention.noise, **variation)
    if catalogue.SAMPLERS[sampler].noise != "brownian" or len(sigmas) < 2:
        return start, start
    low = min(sigma for sigma in sigmas if sigma > 0.0)
    if batch:
        return start, BrownianNoise(seeds[:1], (len(seeds), *shape), low, max(sigmas))
    return start, BrownianNoise(seeds, shape, low, max(sigmas))
