"""Prompts in parts, contexts of other lengths, CFG++'s second estimate, and tricks of guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import Pull, classifier_free, guided, network_denoiser
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.diffusion.tricks import adaptive_projected, dynamically_thresholded, rescaled
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
    theirs = rescale_noise_cfg(without + 7.5 * (with_prompt - without), with_prompt, share)
    torch.testing.assert_close(rescaled(7.5, share)(without, with_prompt, 1.0), theirs)


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
            combine=classifier_free(4.0),
            on_estimates=on_estimates,
        )(X, SIGMA)

    assert relative_error(end(True), end(False)) <= 1e-5
