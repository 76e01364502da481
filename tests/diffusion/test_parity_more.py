"""The samplers beyond the first six against diffusers: every call of the network, and the end."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sdscratch.diffusion.conventions import sampler_parameters
from sdscratch.diffusion.spacing import make_sigma_schedule, steps_from_strength
from support.diffusion import (
    MORE_CLASSES,
    NETWORKS,
    random_network,
    reference_scheduler,
    reference_trajectory,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

FIRST = importlib.util.spec_from_file_location(
    "test_parity_diffusers", Path(__file__).with_name("test_parity_diffusers.py")
)
assert FIRST is not None
assert FIRST.loader is not None
first = importlib.util.module_from_spec(FIRST)
FIRST.loader.exec_module(first)

CHANGES: dict[str, dict[str, Any]] = {"dpm++2m_sde": {"algorithm_type": "sde-dpmsolver++"}}


# diffusers' image-to-image counts the others' doubled timesteps as steps, or lets them remember skipped ones
IMAGE_TO_IMAGE = ("dpm++2m_sde", "tcd", "unipc")


@pytest.mark.parametrize("steps", [4, 7, 10])
@pytest.mark.parametrize(
    ("sampler", "strength"), [*product(MORE_CLASSES, [None]), *product(IMAGE_TO_IMAGE, [0.6])]
)
def test_trajectories_are_those_of_diffusers(sampler: str, steps: int, strength: float | None) -> None:
    network = random_network(NETWORKS[steps % 3], steps)
    path = make_sigma_schedule(first.SCHEDULE, sampler, None, steps)
    start: dict[str, Any] = {} if strength is None else {"init": first.init_latent()}
    if strength is not None:
        path = path.tail(steps_from_strength(steps, strength))
    options = sampler_parameters("diffusers", sampler)
    reference = reference_trajectory(
        reference_scheduler(sampler, **CHANGES.get(sampler, {})),
        network,
        first.contexts(),
        first.SEEDS,
        first.SHAPE,
        steps,
        strength=strength or 1.0,
        **start,
    )
    first.assert_same(first.our_trajectory(network, path, sampler, **start, **options), reference)
