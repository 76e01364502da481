"""Prompts in parts, contexts of other lengths, CFG++'s second estimate, and tricks of guidance."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import (
    Guidance,
    GuidedDenoiser,
    Network,
    Prediction,
    Pull,
    by_evaluation,
    classifier_free,
    conditioned,
    guided,
    network_denoiser,
    pair_predictor,
    rescaled,
    twice,
)
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.diffusion.tricks import adaptive_projected, dynamically_thresholded
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from support.diffusion import random_network, relative_error

PATH = make_sigma_schedule(Schedule(ScheduleConfig()), "euler", None, 10)
SIGMA = PATH.sigmas[4]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = draw(2, 4, 6, 5, seed=1) * 3
SHORT, LONG, OTHER, EMPTY = (draw(1, t, 5, seed=t) for t in (3, 6, 9, 3))
NETWORK = random_network("waves", 2)


def alone(context: Tensor) -> Tensor:
    return network_denoiser(NETWORK, PATH, "epsilon", Conditioning(context))(X, SIGMA)


def test_contexts_of_unequal_length_are_calls_of_their_own() -> None:
    denoise = guided(
        NETWORK, PATH, "epsilon", prompt=Conditioning(LONG), negative=Conditioning(SHORT), scale=4.0
    )
    expected = alone(SHORT) + 4.0 * (alone(LONG) - alone(SHORT))
    assert relative_error(denoise(X, SIGMA), expected) <= 1e-5


def test_or_are_padded_with_the_empty_prompt_in_one_batch() -> None:
    shapes = []

    def network(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        shapes.append(tuple(told.context.shape))
        return NETWORK(x, timesteps, told)

    denoise = guided(
        network,
        PATH,
        "epsilon",
        prompt=Conditioning(LONG),
        negative=Conditioning(SHORT),
        scale=4.0,
        filler=EMPTY,
    )
    filled = alone(torch.cat([SHORT, EMPTY], 1))
    expected = filled + 4.0 * (alone(LONG) - filled)
    assert relative_error(denoise(X, SIGMA), expected) <= 1e-5
    assert shapes == [(4, 6, 5)]


@pytest.mark.parametrize("others", [(LONG, OTHER), (SHORT + 1, SHORT + 2)])
def test_parts_of_a_prompt_pull_by_their_weights(others: tuple[Tensor, Tensor]) -> None:
    parts = [Pull(Conditioning(others[0]), 0.7), Pull(Conditioning(others[1]), -0.4)]
    denoise = guided(NETWORK, PATH, "epsilon", prompt=parts, negative=Conditioning(SHORT), scale=3.0)
    without = alone(SHORT)
    pulls = 0.7 * (alone(others[0]) - without) - 0.4 * (alone(others[1]) - without)
    assert relative_error(denoise(X, SIGMA), without + 3.0 * pulls) <= 1e-5


def test_the_estimate_without_the_prompt_costs_nothing_after_the_guided_one() -> None:
    calls = []

    def network(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        calls.append(len(x))
        return NETWORK(x, timesteps, told)

    denoise = guided(
        network, PATH, "epsilon", prompt=Conditioning(LONG[:, :3]), negative=Conditioning(SHORT), scale=4.0
    )
    denoise(X, SIGMA)
    assert relative_error(denoise.unconditional(X, SIGMA), alone(SHORT)) <= 1e-5  # type: ignore[attr-defined]
    assert calls == [4]


def test_cfg_plus_plus_finds_the_estimate_without_the_prompt_at_the_denoiser() -> None:
    denoise = guided(
        NETWORK, PATH, "epsilon", prompt=Conditioning(LONG), negative=Conditioning(SHORT), scale=1.5
    )
    without = network_denoiser(NETWORK, PATH, "epsilon", Conditioning(SHORT))

    def end(**parameters: object) -> Tensor:
        *_, step = SAMPLERS["dpm++2m_cfg++"](denoise, X, PATH.sigmas, lambda *_: X * 0, **parameters)
        return step.latent

    assert relative_error(end(), end(unconditional=without)) <= 1e-5
    *_, plain = SAMPLERS["dpm++2m"](denoise, X, PATH.sigmas, lambda *_: X * 0)
    assert relative_error(end(), plain.latent) > 1e-2


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaling_is_that_of_diffusers(share: float) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    without, with_prompt = draw(2, 4, 6, 5, seed=5), draw(2, 4, 6, 5, seed=6)
    guided = without + 7.5 * (with_prompt - without)
    torch.testing.assert_close(
        rescaled(guided, with_prompt, share), rescale_noise_cfg(guided, with_prompt, share)
    )


@pytest.mark.parametrize(("eta", "threshold"), [(0.0, 0.0), (0.5, 3.0), (1.0, 0.0)])
def test_adaptive_projected_guidance_is_that_of_diffusers(eta: float, threshold: float) -> None:
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    ours = adaptive_projected(5.0, eta=eta, momentum=-0.5, norm_threshold=threshold)
    buffer = MomentumBuffer(-0.5)
    for seed in range(3):
        without, with_prompt = draw(2, 4, 6, 5, seed=seed), draw(2, 4, 6, 5, seed=seed + 9)
        theirs = normalized_guidance(with_prompt, without, 4.0, buffer, eta, threshold, True)
        torch.testing.assert_close(ours(without, with_prompt, 1.0), theirs, rtol=1e-4, atol=1e-4)


def test_without_momentum_bound_or_projection_it_is_classifier_free_guidance() -> None:
    without, with_prompt = draw(2, 4, 6, 5, seed=5), draw(2, 4, 6, 5, seed=6)
    plain = classifier_free(6.0)(without, with_prompt, 1.0)
    projected = adaptive_projected(6.0, eta=1.0, momentum=0.0)(without, with_prompt, 1.0)
    torch.testing.assert_close(projected, plain, rtol=1e-4, atol=1e-5)


def test_dynamic_thresholding_keeps_the_range_of_the_lower_scale_and_each_channels_mean() -> None:
    without, with_prompt = draw(2, 4, 6, 5, seed=5), draw(2, 4, 6, 5, seed=6)
    far, near = (classifier_free(scale)(without, with_prompt, 1.0) for scale in (20.0, 7.0))
    ours = dynamically_thresholded(20.0, 7.0)(without, with_prompt, 1.0)
    torch.testing.assert_close(ours.mean((2, 3)), far.mean((2, 3)), rtol=1e-4, atol=1e-4)

    def reach(x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)).abs().amax((2, 3))

    torch.testing.assert_close(reach(ours), reach(near), rtol=1e-4, atol=1e-4)
    assert (reach(far) > reach(near)).all()
    same = dynamically_thresholded(7.0, 7.0)(without, with_prompt, 1.0)
    torch.testing.assert_close(same, near, rtol=1e-4, atol=1e-4)


def test_combining_estimates_is_combining_predictions_for_what_is_linear() -> None:
    def end(on_estimates: bool) -> Tensor:
        return guided(
            NETWORK,
            PATH,
            "v",
            prompt=Conditioning(LONG),
            negative=Conditioning(SHORT),
            scale=4.0,
            guidance=Guidance(classifier_free(4.0), on_estimates),
        )(X, SIGMA)

    assert relative_error(end(True), end(False)) <= 1e-5


# --- Perturbed attention, and everything in its order ------------------------------------------------------

OTHER_NETWORK = random_network("perceptron", 5)
PROMPT, NEGATIVE = Conditioning(LONG), Conditioning(SHORT)
SCALE = math.sqrt(1.0 + SIGMA**2)


def noises(*networks: Network, told: Conditioning = PROMPT) -> list[Tensor]:
    return [conditioned(network, told)(X / SCALE, PATH.timestep(SIGMA)) for network in networks]


def test_perturbed_attention_pulls_as_in_diffusers_pipelines() -> None:
    pair = pair_predictor(NETWORK, [Pull(PROMPT)], NEGATIVE, perturbed=OTHER_NETWORK)
    ours = GuidedDenoiser(pair, PATH, "epsilon", Guidance(classifier_free(5.0), perturbed=3.0, rescale=0.4))
    (without,), (with_prompt, perturbed) = noises(NETWORK, told=NEGATIVE), noises(NETWORK, OTHER_NETWORK)

    from diffusers.pipelines.pag.pag_utils import PAGMixin
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    pipeline = PAGMixin()
    pipeline._pag_scale, pipeline._pag_adaptive_scale = 3.0, 0.0
    together = torch.cat([without, with_prompt, perturbed])
    theirs = pipeline._apply_perturbed_attention_guidance(together, True, 5.0, 0)
    theirs = rescale_noise_cfg(theirs, with_prompt, 0.4)
    assert relative_error(ours(X, SIGMA), X - SIGMA * theirs) <= 1e-5


def test_without_guidance_it_pulls_from_the_prompt_alone() -> None:
    pair = twice(conditioned(NETWORK, PROMPT), conditioned(OTHER_NETWORK, PROMPT))
    ours = GuidedDenoiser(pair, PATH, "epsilon", Guidance(classifier_free(1.0), perturbed=2.0))
    plain, perturbed = noises(NETWORK, OTHER_NETWORK)
    assert relative_error(ours(X, SIGMA), X - SIGMA * (plain + 2.0 * (plain - perturbed))) <= 1e-5


def test_of_several_prompts_each_is_perturbed_by_its_weight() -> None:
    pulls = [Pull(PROMPT, 0.7), Pull(Conditioning(OTHER), -0.4)]
    pair = pair_predictor(NETWORK, pulls, NEGATIVE, perturbed=OTHER_NETWORK)
    guidance = Guidance(classifier_free(3.0), perturbed=2.0)
    ours = GuidedDenoiser(pair, PATH, "epsilon", guidance)(X, SIGMA)
    expected = GuidedDenoiser(pair_predictor(NETWORK, pulls, NEGATIVE), PATH, "epsilon", guidance)(X, SIGMA)
    for pull in pulls:
        plain, perturbed = noises(NETWORK, OTHER_NETWORK, told=pull.prompt)
        expected = expected - SIGMA * 2.0 * pull.weight * (plain - perturbed)
    assert relative_error(ours, expected) <= 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_rescaled_velocities_are_those_that_predictions_stand_for(prediction: Prediction) -> None:
    """ComfyUI's: of a network of either kind, the velocity is what is rescaled."""
    pair = pair_predictor(NETWORK, [Pull(PROMPT)], NEGATIVE)
    ours = GuidedDenoiser(pair, PATH, prediction, Guidance(classifier_free(6.0), rescale=0.7, rescale_as="v"))
    told = [noises(NETWORK, told=each)[0].double() for each in (NEGATIVE, PROMPT)]
    x = X.double()
    if prediction == "epsilon":
        told = [(each - SIGMA * (x - SIGMA * each)) / SCALE for each in told]
    without, with_prompt = told
    guided = without + 6.0 * (with_prompt - without)
    spread = with_prompt.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    velocity = 0.7 * guided * spread + 0.3 * guided
    assert relative_error(ours(X, SIGMA), x / SCALE**2 - SIGMA / SCALE * velocity) <= 1e-5


def test_after_a_guidance_of_estimates_the_prediction_is_rescaled() -> None:
    pair = pair_predictor(NETWORK, [Pull(PROMPT)], NEGATIVE, perturbed=OTHER_NETWORK)
    guidance = Guidance(adaptive_projected(6.0, eta=0.3), True, perturbed=1.5, rescale=0.7)
    ours = GuidedDenoiser(pair, PATH, "epsilon", guidance)(X, SIGMA)
    (without,) = noises(NETWORK, told=NEGATIVE)
    estimates = [X - SIGMA * each for each in (without, *noises(NETWORK, OTHER_NETWORK))]
    guided = adaptive_projected(6.0, eta=0.3)(estimates[0], estimates[1], SIGMA)
    guided = guided + 1.5 * (estimates[1] - estimates[2])
    noise = (X - guided).double() / SIGMA
    (with_prompt,) = noises(NETWORK)
    spread = with_prompt.std((1, 2, 3), keepdim=True) / noise.std((1, 2, 3), keepdim=True)
    expected = X - SIGMA * (0.7 * noise * spread + 0.3 * noise)
    assert relative_error(ours, expected) <= 1e-5


def test_predictors_that_share_their_numbers_go_through_the_same_prompts() -> None:
    seen: list[int] = []

    def choose(evaluation: int) -> Any:
        seen.append(evaluation)
        return lambda x, timestep: x

    numbers = count()
    one, other = (by_evaluation(choose, numbers) for _ in range(2))
    for predict in (one, other, other, one):
        predict(X, 1.0)
    assert seen == [0, 1, 2, 3]
