"""Whole trajectories against diffusers: what the network is shown at every step, and what comes out."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import guided
from sdscratch.diffusion.noise import Noise
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule, steps_from_strength
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from support.diffusion import (
    NETWORKS,
    Trajectory,
    random_network,
    reference_scheduler,
    reference_trajectory,
    relative_error,
)
from support.diffusion import SAMPLERS as SAMPLER_NAMES

# diffusers hands tensors to numpy in a way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-4
SHAPE = (4, 6, 5)
SEEDS = (7, 8)
STEPS = (5, 6, 7, 10, 13, 20, 30, 50)
SCHEDULE = Schedule(ScheduleConfig())


def contexts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(99)
    return [torch.randn(len(SEEDS), 3, 5, generator=generator) for _ in range(2)]


def init_latent() -> Tensor:
    return torch.randn(len(SEEDS), *SHAPE, generator=torch.Generator().manual_seed(5)) * 0.9


def our_trajectory(
    network: Any,
    path: SigmaSchedule,
    sampler: str,
    *,
    scale: float = 1.0,
    prediction: Any = "epsilon",
    init: Tensor | None = None,
    **options: float,
) -> Trajectory:
    seen = Trajectory()
    watched = seen.watching(network, 2 if scale > 1.0 else 1)
    negative, prompt = map(Conditioning, contexts())
    denoise = guided(watched, path, prediction, prompt=prompt, negative=negative, scale=scale)
    noise = Noise(SEEDS, SHAPE)
    x = noise() * path.start_scale if init is None else init + noise() * path.sigmas[0]
    for step in SAMPLERS[sampler](denoise, x, path.sigmas, noise, **options):
        seen.end = step.latent * path.end_scale
    return seen


def assert_same(ours: Trajectory, reference: Trajectory) -> None:
    """The same calls of the network, step by step, and the same end."""
    torch.testing.assert_close(
        torch.tensor(ours.timesteps), torch.tensor(reference.timesteps), rtol=1e-5, atol=2e-4
    )
    errors = [relative_error(a, b) for a, b in zip(ours.inputs, reference.inputs, strict=True)]
    errors.append(relative_error(ours.end, reference.end))
    assert max(errors) <= TOLERANCE, errors


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_txt2img_is_that_of_diffusers(sampler: str, steps: int) -> None:
    for seed, kind in enumerate(NETWORKS):
        network = random_network(kind, seed)
        ours = our_trajectory(network, make_sigma_schedule(SCHEDULE, sampler, None, steps), sampler)
        assert_same(
            ours, reference_trajectory(reference_scheduler(sampler), network, contexts(), SEEDS, SHAPE, steps)
        )


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_guided_txt2img_is_that_of_diffusers(sampler: str) -> None:
    for seed, (kind, scale) in enumerate(product(NETWORKS, (1.5, 7.5))):
        network = random_network(kind, seed)
        path = make_sigma_schedule(SCHEDULE, sampler, None, 15)
        ours = our_trajectory(network, path, sampler, scale=scale)
        reference = reference_trajectory(
            reference_scheduler(sampler), network, contexts(), SEEDS, SHAPE, 15, scale=scale
        )
        assert_same(ours, reference)


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.29, 0.3, 0.5, 0.58, 0.75, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_img2img_is_that_of_diffusers(sampler: str, strength: float) -> None:
    for seed, (kind, steps) in enumerate(product(NETWORKS, (20, 50))):
        network = random_network(kind, seed)
        path = make_sigma_schedule(SCHEDULE, sampler, None, steps).tail(steps_from_strength(steps, strength))
        ours = our_trajectory(network, path, sampler, init=init_latent())
        reference = reference_trajectory(
            reference_scheduler(sampler),
            network,
            contexts(),
            SEEDS,
            SHAPE,
            steps,
            init=init_latent(),
            strength=strength,
        )
        assert_same(ours, reference)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_fresh_noise_is_that_of_diffusers(eta: float, steps: int) -> None:
    for seed, (kind, strength) in enumerate(product(NETWORKS, (None, 0.6))):
        network = random_network(kind, seed)
        path = make_sigma_schedule(SCHEDULE, "ddim", None, steps)
        start: dict[str, Any] = {} if strength is None else {"init": init_latent()}
        if strength is not None:
            path = path.tail(steps_from_strength(steps, strength))
        ours = our_trajectory(network, path, "ddim", eta=eta, **start)
        reference = reference_trajectory(
            reference_scheduler("ddim"),
            network,
            contexts(),
            SEEDS,
            SHAPE,
            steps,
            eta=eta,
            strength=strength or 1.0,
            **start,
        )
        assert_same(ours, reference)


# diffusers' DDIM goes down by 1000 // steps whatever the spacing, so that with trailing (where steps do not
# divide 1000) and linspace it takes one timestep's latent for another's: no reference there.
SPACED = [
    *product(("ddpm", "euler", "euler_a", "heun", "dpm++2m"), ("leading", "trailing", "linspace"), STEPS),
    *product(("ddim",), ("leading",), STEPS),
    *product(("ddim",), ("trailing",), (5, 10, 20, 50)),
]


@pytest.mark.parametrize(("sampler", "spacing", "steps"), SPACED)
def test_spacings_by_timestep_are_those_of_diffusers(sampler: str, spacing: str, steps: int) -> None:
    network = random_network(NETWORKS[steps % 3], steps)
    reference = reference_trajectory(
        reference_scheduler(sampler, timestep_spacing=spacing), network, contexts(), SEEDS, SHAPE, steps
    )
    assert_same(
        our_trajectory(network, make_sigma_schedule(SCHEDULE, sampler, spacing, steps), sampler), reference
    )


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m"])
def test_spacings_by_sigma_are_those_of_diffusers(sampler: str, spacing: str, steps: int) -> None:
    network = random_network(NETWORKS[steps % 3], steps)
    scheduler = reference_scheduler(sampler, **{f"use_{spacing}_sigmas": True})
    path = make_sigma_schedule(SCHEDULE, sampler, spacing, steps)
    reference = reference_trajectory(scheduler, network, contexts(), SEEDS, SHAPE, steps)
    assert_same(our_trajectory(network, path, sampler), reference)
    reference = reference_trajectory(
        scheduler, network, contexts(), SEEDS, SHAPE, steps, init=init_latent(), strength=0.7
    )
    tail = path.tail(steps_from_strength(steps, 0.7))
    assert_same(our_trajectory(network, tail, sampler, init=init_latent()), reference)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_velocity_prediction_is_that_of_diffusers(sampler: str, spacing: str) -> None:
    for seed, kind in enumerate(NETWORKS):
        network = random_network(kind, seed)
        scheduler = reference_scheduler(sampler, timestep_spacing=spacing, prediction_type="v_prediction")
        for scale, init in ((1.0, None), (4.0, None), (1.0, init_latent())):
            path = make_sigma_schedule(SCHEDULE, sampler, spacing, 20)
            path = path if init is None else path.tail(12)
            ours = our_trajectory(network, path, sampler, prediction="v", init=init, scale=scale)
            reference = reference_trajectory(
                scheduler, network, contexts(), SEEDS, SHAPE, 20, init=init, strength=0.6, scale=scale
            )
            assert_same(ours, reference)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_another_forward_process_is_that_of_diffusers(sampler: str) -> None:
    config = ScheduleConfig(timesteps=400, beta_start=0.001, beta_end=0.03)
    network = random_network("perceptron", 3)
    changes = {
        "num_train_timesteps": 400,
        "beta_start": 0.001,
        "beta_end": 0.03,
        "timestep_spacing": "trailing",
    }
    reference = reference_trajectory(
        reference_scheduler(sampler, **changes), network, contexts(), SEEDS, SHAPE, 20
    )
    path = make_sigma_schedule(Schedule(config), sampler, "trailing", 20)
    assert_same(our_trajectory(network, path, sampler), reference)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpm++2m"])
def test_sigmas_are_those_of_diffusers(sampler: str, steps: int) -> None:
    """Closely enough to tell an interpolated σ from an interpolated log σ."""
    scheduler = reference_scheduler(sampler)
    scheduler.set_timesteps(steps)
    path = make_sigma_schedule(SCHEDULE, sampler, None, steps)
    # near timestep 0 diffusers' float32 has lost more than the interpolations differ by
    counted = [index for index, t in enumerate(path.timesteps) if t >= 10]
    ours = torch.tensor(path.sigmas)[counted]
    torch.testing.assert_close(ours, scheduler.sigmas[counted], rtol=5e-6, atol=0)
