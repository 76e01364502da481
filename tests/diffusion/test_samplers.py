"""What must hold of samplers whatever the reference does: exact solutions, orders, distributions, purity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdscratch.diffusion import catalogue
from sdscratch.diffusion.noise import Noise
from sdscratch.diffusion.samplers import SAMPLERS, Denoiser, Step
from sdscratch.diffusion.samplers.euler import euler
from sdscratch.diffusion.samplers.first_order import ddim, ddpm, euler_a
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.models.config import ScheduleConfig

SCHEDULE = Schedule(ScheduleConfig())
SHAPE = (4, 8, 8)
SAMPLER_NAMES = tuple(SAMPLERS)
OWN_STEPS = {"dpm_fast", "dpm_adaptive"}  # they choose their levels, and end above 0
DETERMINISTIC = [row.name for row in catalogue.SAMPLERS.values() if row.noise == "none"] + ["ddim"]
EXACT = [name for name in SAMPLER_NAMES if name not in OWN_STEPS and "unipc" not in name]
EXACT.remove("ipndm_v")  # whose shares do not add up to 1 (multistep.py)


def refuse_noise(*interval: float) -> Tensor:
    raise AssertionError("drew noise")


def gaussian(mean: float, std: float) -> Denoiser:
    """The exact denoiser where pictures are normal: the posterior mean of x₀ given x = x₀ + σ·noise."""
    return lambda x, sigma: mean + std**2 / (std**2 + sigma**2) * (x - mean)


def gaussian_flow(x: Tensor, sigma: float, end: float, mean: float, std: float) -> Tensor:
    """Where the probability-flow ODE takes x for that denoiser: towards the mean, as the width shrinks."""
    return mean + (x - mean) * math.sqrt((std**2 + end**2) / (std**2 + sigma**2))


def last(
    sampler: str, denoise: Denoiser, x: Tensor, sigmas: Sequence[float], noise: Noise | None = None
) -> Step:
    *_, step = SAMPLERS[sampler](denoise, x, sigmas, noise or refuse_noise)
    return step


def test_every_sampler_has_its_row_in_the_catalogue() -> None:
    assert set(SAMPLERS) == set(catalogue.SAMPLERS)


@given(st.sampled_from(EXACT), st.integers(1, 40), st.integers(0, 2**40))
def test_the_exact_denoiser_of_a_single_picture_is_solved_exactly(
    sampler: str, steps: int, seed: int
) -> None:
    picture = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    noise = Noise((seed, seed + 1), SHAPE)
    sigmas = (*make_sigma_schedule(SCHEDULE, sampler, None, steps).sigmas[:-1], 0.0)
    step = last(sampler, lambda x, sigma: picture, noise() * sigmas[0], sigmas, noise)
    torch.testing.assert_close(step.latent, picture, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm++2m", 2)])
def test_the_error_falls_with_the_order_of_the_method(sampler: str, order: int) -> None:
    """Twice the steps leave a half (first order) or a quarter (second order) of the error."""
    start, end, mean, std = 10.0, 0.5, 0.3, 1.0
    x = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * start

    def error(steps: int) -> float:
        sigmas = [start * (end / start) ** (i / steps) for i in range(steps + 1)]
        exact = gaussian_flow(x, start, end, mean, std)
        return float((last(sampler, gaussian(mean, std), x, sigmas).latent - exact).abs().max())

    measured = math.log2(error(512) / error(1024))
    assert measured == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_around_a_single_picture_every_latent_keeps_the_noise_level_of_its_sigma(eta: float) -> None:
    """What DDIM's η is made for: the marginals are the same for each share of fresh noise."""
    shape = (4, 64, 64)
    noise = Noise((1,), shape)
    path = make_sigma_schedule(SCHEDULE, "ddim", None, 12)
    x = 0.7 + noise() * path.sigmas[0]
    for step in ddim(lambda x, sigma: torch.full_like(x, 0.7), x, path.sigmas, noise, eta=eta):
        rest = step.latent - 0.7
        assert float(rest.mean()) == pytest.approx(0.0, abs=0.04 * step.sigma)
        assert float(rest.std()) == pytest.approx(step.sigma, rel=0.03)


def tangle(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x.roll(1, 1) / (1 + sigma)) - 0.1 * x / (1 + sigma**2)


def run(sampler: str, seeds: Sequence[int], steps: int = 9) -> list[Step]:
    noise = Noise(seeds, SHAPE)
    path = make_sigma_schedule(SCHEDULE, sampler, None, steps)
    return list(SAMPLERS[sampler](tangle, noise() * path.start_scale, path.sigmas, noise))


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_run_repeats_bit_for_bit(sampler: str) -> None:
    for a, b in zip(run(sampler, (5,)), run(sampler, (5,)), strict=True):
        assert torch.equal(a.latent, b.latent)


@pytest.mark.parametrize("sampler", [row.name for row in catalogue.SAMPLERS.values() if not row.alone])
def test_a_picture_is_the_same_at_every_batch_size(sampler: str) -> None:
    together = run(sampler, (5, 6, 7))[-1].latent
    for index, seed in enumerate((5, 6, 7)):
        assert torch.equal(together[index], run(sampler, (seed,))[-1].latent[0])


@pytest.mark.parametrize("sampler", [name for name in SAMPLER_NAMES if name not in OWN_STEPS])
def test_steps_are_numbered_in_float32_and_carry_the_sigma_they_reached(sampler: str) -> None:
    path = make_sigma_schedule(SCHEDULE, sampler, None, 9)
    steps = run(sampler, (5,))
    assert [step.index for step in steps] == list(range(9))
    assert tuple(step.sigma for step in steps) == path.sigmas[1:]
    assert all(step.latent.dtype == step.denoised.dtype == torch.float32 for step in steps)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_the_start_latent_is_left_as_it_was(sampler: str) -> None:
    noise = Noise((1,), SHAPE)
    path = make_sigma_schedule(SCHEDULE, sampler, None, 5)
    x = noise() * path.start_scale
    before = x.clone()
    last(sampler, tangle, x, path.sigmas, noise)
    assert torch.equal(x, before)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(sampler: str) -> None:
    last(sampler, tangle, torch.ones(1, *SHAPE), make_sigma_schedule(SCHEDULE, sampler, None, 5).sigmas)


@pytest.mark.parametrize("sampler", ["ddpm", "euler_a"])
def test_ancestral_samplers_draw_once_a_step_but_not_at_the_end(sampler: str) -> None:
    source, draws = Noise((1,), SHAPE), []

    def noise(*interval: float) -> Tensor:
        draws.append(source())
        return draws[-1]

    path = make_sigma_schedule(SCHEDULE, sampler, None, 8)
    list(SAMPLERS[sampler](tangle, torch.ones(1, *SHAPE), path.sigmas, noise))
    assert len(draws) == 7


@pytest.mark.parametrize("sampler", [name for name in SAMPLER_NAMES if name != "dpm_adaptive"])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_the_denoiser_is_called_as_often_as_the_catalogue_says(sampler: str, steps: int) -> None:
    asked = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return tangle(x, sigma)

    path = make_sigma_schedule(SCHEDULE, sampler, "normal", steps)
    last(sampler, denoise, torch.ones(1, *SHAPE), path.sigmas, Noise((1,), SHAPE))
    row = catalogue.SAMPLERS[sampler]
    assert len(asked) == row.evaluations(steps)
    if row.denoisings in ("n", "2n-1") and sampler in ("euler", "dpm++2m", "heun"):
        assert set(asked) == set(path.sigmas[:-1])


def test_one_mathematics_has_many_names() -> None:
    sigmas = make_sigma_schedule(SCHEDULE, "euler", "karras", 10).sigmas

    def end(sampler: object, **options: float) -> Tensor:
        noise = Noise((1, 2), SHAPE)
        *_, step = sampler(tangle, noise() * sigmas[0], sigmas, noise, **options)  # type: ignore[operator]
        return step.latent

    assert torch.equal(end(euler), end(ddim, eta=0.0))
    assert torch.equal(end(euler_a), end(ddim, eta=1.0))
    assert torch.equal(end(ddpm), end(euler_a))
    assert not torch.allclose(end(ddim, eta=0.5), end(ddim, eta=1.0))


def test_samplers_are_lazy_so_that_a_caller_can_stop_between_steps() -> None:
    asked = []
    steps = SAMPLERS["euler"](
        lambda x, s: asked.append(s) or x * 0, torch.ones(1), (2.0, 1.0, 0.0), refuse_noise
    )
    assert asked == []
    next(iter(steps))
    assert asked == [2.0]
