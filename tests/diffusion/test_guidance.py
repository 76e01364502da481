from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import guided, network_denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from support.diffusion import random_network, relative_error

SCHEDULE = Schedule(ScheduleConfig())
PATH = make_sigma_schedule(SCHEDULE, "euler", None, 10)
SIGMA = PATH.sigmas[4]
GENERATOR = torch.Generator().manual_seed(0)
PROMPT, NEGATIVE = torch.randn(2, 1, 3, 5, generator=GENERATOR).unbind()
X = torch.randn(2, 4, 6, 5, generator=GENERATOR) * SIGMA


class Recording:
    """A network that keeps what it was called with."""

    def __init__(self) -> None:
        self.network = random_network("perceptron", 1)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        self.calls.append((x, timesteps, told.context))
        return self.network(x, timesteps, told)


def at_once(network: Any, context: Tensor, prediction: Any = "epsilon") -> Tensor:
    return network_denoiser(network, PATH, prediction, Conditioning(context))(X, SIGMA)


def test_the_network_is_shown_unit_variance_and_the_timestep_of_the_sigma() -> None:
    network = Recording()
    at_once(network, PROMPT)
    ((x, timesteps, context),) = network.calls
    torch.testing.assert_close(x, X / math.sqrt(1 + SIGMA**2))
    torch.testing.assert_close(timesteps, torch.full((2,), PATH.timesteps[4]))
    assert timesteps.dtype == torch.float32
    assert torch.equal(context, PROMPT.expand(2, 3, 5))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_network_that_predicts_perfectly_gives_back_the_picture(prediction: Any) -> None:
    picture, noise = torch.randn(2, 2, 4, 6, 5, generator=torch.Generator().manual_seed(1)).unbind()

    def perfect(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        keep, add = 1 / math.sqrt(1 + SIGMA**2), SIGMA / math.sqrt(1 + SIGMA**2)
        return noise if prediction == "epsilon" else keep * noise - add * picture

    denoise = network_denoiser(perfect, PATH, prediction, Conditioning(PROMPT))
    torch.testing.assert_close(denoise(picture + SIGMA * noise, SIGMA), picture, rtol=0, atol=1e-5)


def test_guidance_runs_both_halves_in_one_batch_the_negative_first() -> None:
    network = Recording()
    guided(network, PATH, "epsilon", prompt=Conditioning(PROMPT), negative=Conditioning(NEGATIVE), scale=7.5)(
        X, SIGMA
    )
    ((x, timesteps, context),) = network.calls
    assert torch.equal(x[:2], x[2:])
    assert timesteps.shape == (4,)
    assert torch.equal(context, torch.cat([NEGATIVE, NEGATIVE, PROMPT, PROMPT]))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("scale", [1.01, 3.0, 7.5, 30.0])
def test_guidance_on_predictions_is_guidance_on_pictures(scale: float, prediction: Any) -> None:
    network = random_network("waves", 2)
    positive, negative = (at_once(network, context, prediction) for context in (PROMPT, NEGATIVE))
    denoise = guided(
        network, PATH, prediction, prompt=Conditioning(PROMPT), negative=Conditioning(NEGATIVE), scale=scale
    )
    assert relative_error(denoise(X, SIGMA), negative + scale * (positive - negative)) <= 1e-5


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_at_scale_one_or_less_the_network_sees_the_prompt_alone(scale: float) -> None:
    network = Recording()
    result = guided(
        network, PATH, "epsilon", prompt=Conditioning(PROMPT), negative=Conditioning(NEGATIVE), scale=scale
    )(X, SIGMA)
    assert torch.equal(result, at_once(network.network, PROMPT))
    assert [len(x) for x, *_ in network.calls] == [2]


def test_pictures_one_by_one_are_the_pictures_of_the_batch() -> None:
    denoise = guided(
        random_network("waves", 2),
        PATH,
        "epsilon",
        prompt=Conditioning(PROMPT),
        negative=Conditioning(NEGATIVE),
        scale=4.0,
    )
    apart = torch.cat([denoise(x, SIGMA) for x in X.split(1)])
    torch.testing.assert_close(apart, denoise(X, SIGMA), rtol=1e-6, atol=1e-6)


def test_each_picture_may_have_a_prompt_of_its_own() -> None:
    prompts = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3))
    network = random_network("perceptron", 4)
    denoise = guided(
        network, PATH, "epsilon", prompt=Conditioning(prompts), negative=Conditioning(NEGATIVE), scale=4.0
    )
    for index in range(2):
        alone = guided(
            network,
            PATH,
            "epsilon",
            prompt=Conditioning(prompts[index : index + 1]),
            negative=Conditioning(NEGATIVE),
            scale=4.0,
        )
        torch.testing.assert_close(alone(X[index : index + 1], SIGMA), denoise(X, SIGMA)[index : index + 1])
