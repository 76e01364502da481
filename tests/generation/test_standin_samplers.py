"""Every sampler, source of noise and form of guidance computes on the device, and waits for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.guidance import Combine, classifier_free
from sdscratch.diffusion.noise import noise_sources
from sdscratch.diffusion.sample import sample
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.diffusion.tricks import adaptive_projected, dynamically_thresholded
from sdscratch.generation.start import device_noise
from sdscratch.models.config import ScheduleConfig
from support.standin import GPU, StandIn, standing_in

SCHEDULE = Schedule(ScheduleConfig())
SHAPE = (4, 8, 8)
ADAPTIVE = {("diffusion/samplers/dpm_solver.py", "dpm_adaptive")}  # how large its next step is follows from x


class Estimates:
    """A denoiser of nothing: estimates on the device."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        assert isinstance(sigma, float)
        return x / (1.0 + sigma**2)

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        return x / (2.0 + sigma**2)


def sampled(sampler: str, device: str, steps: int, like: str = "sdscratch", **noise: Any) -> StandIn:
    """A sampling on the device, and what the mode saw of it."""
    with standing_in(device) as mode, torch.no_grad():
        path = make_sigma_schedule(SCHEDULE, sampler, None, steps, like=like)
        seeds = [1] if SAMPLERS[sampler].alone else [1, 2]
        start, more = noise_sources(sampler, path.sigmas, seeds, SHAPE, like=like, **noise)
        x = device_noise(start, GPU)() * path.start_scale
        *_, last = sample(sampler, Estimates(), x, path, device_noise(more, GPU))
        assert last.latent.device == GPU
        assert last.latent.dtype == torch.float32
    return mode


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_sampler_reads_nothing_from_the_device(sampler: str, kind: str) -> None:
    mode = sampled(sampler, kind, 5)
    places = {place for place in mode.reads if place[0].startswith("diffusion/")}
    assert places == (
        {("diffusion/samplers/dpm_solver.py", "dpm_adaptive")} if sampler == "dpm_adaptive" else set()
    )
    assert set(mode.uploads) <= {("generation/start.py", "draw")}


VARIED = {
    "another later": {"ensd": 31337},
    "resized": {"resize_from": (6, 10)},
}


@pytest.mark.parametrize("name", VARIED)
def test_noise_varied_in_each_way(name: str) -> None:
    assert not sampled("euler_a", "mps", 3, **VARIED[name]).reads


COMBINES: dict[str, Callable[[], Combine]] = {
    "guidance": lambda: classifier_free(7.0),
    "threshold": lambda: dynamically_thresholded(7.0, 3.0, 0.995),
    "projected": lambda: adaptive_projected(7.0, eta=0.2, momentum=-0.5, norm_threshold=15.0),
}


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("name", COMBINES)
def test_guidance_is_combined_on_the_device(name: str, kind: str) -> None:
    with standing_in(kind) as mode, torch.no_grad():
        combine = COMBINES[name]()
        x = torch.zeros(2, *SHAPE, device=GPU)
        for sigma in (14.0, 1.0):
            assert combine(x, x + 1, sigma).dtype == torch.float32
    assert not mode.reads
    assert not mode.uploads
