"""Sampling, assembled once: steps, counted, and at their end the latent that the decoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdscratch.diffusion import catalogue
from sdscratch.diffusion.samplers import SAMPLERS, Denoiser, NoiseSource, Step
from sdscratch.diffusion.spacing import SigmaSchedule

__all__ = ["Sampled", "sample", "sample_to_end"]


@dataclass(frozen=True, eq=False)
class Sampled:
    """How far the sampling is.

    `latent` is what the decoder takes when `done == total`; before, it is noisy, in σ-space
    (x = x₀ + σ·noise). `denoised` is the estimate of x₀ that the newest step began with.
    """

    done: int
    total: int
    latent: Tensor  # [n, c, h, w]
    denoised: Tensor


def sample(
    sampler: str, denoise: Denoiser, x: Tensor, path: SigmaSchedule, noise: NoiseSource, **parameters: Any
) -> Iterator[Sampled]:
    """From a start latent through the noise levels of `path`, a step at a time.

    Args:
        sampler: a name of `catalogue.SAMPLERS`.
        denoise, x, noise, parameters: as samplers take them; x is [n, c, h, w] at `path.sigmas[0]`.
    """
    total = catalogue.SAMPLERS[sampler].steps(len(path.timesteps))
    if "restart_list" in parameters:
        total = None
    steps = SAMPLERS[sampler](denoise, x, path.sigmas, noise, **parameters)
    for step, last in with_last(steps) if total is None else ((s, s.index + 1 == total) for s in steps):
        done = step.index + 1
        latent = step.latent * path.end_scale if last and path.end_scale != 1.0 else step.latent
        yield Sampled(done, done + (not last) if total is None else total, latent, step.denoised)


def sample_to_end(
    sampler: str, denoise: Denoiser, x: Tensor, path: SigmaSchedule, noise: NoiseSource, **parameters: Any
) -> Tensor:
    """The latent [n, c, h, w] that the decoder takes; arguments as of `sample`."""
    *_, end = sample(sampler, denoise, x, path, noise, **parameters)
    return end.latent


def with_last(steps: Iterator[Step]) -> Iterator[tuple[Step, bool]]:
    """Steps of a number that only the sampler knows, each as soon as it is known whether another follows."""
    held: Step | None = None
    for step in steps:
        if held is not None:
            yield held, False
        held = step
    if held is not None:
        yield held, True
