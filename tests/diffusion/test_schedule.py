from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule, steps_from_strength
from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig
from support.diffusion import SAMPLERS, SPACINGS

SD1 = Schedule(ScheduleConfig())
EVERY_PATH = list(product(SAMPLERS, (None, *SPACINGS)))


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    start = draw(st.floats(1e-4, 5e-3))
    return Schedule(
        ScheduleConfig(
            timesteps=draw(st.integers(2, 1200)),
            beta_start=start,
            beta_end=start * draw(st.floats(1.5, 20)),
        )
    )


def test_betas_are_scaled_linear() -> None:
    assert SD1.betas[0] == pytest.approx(0.00085, rel=1e-14)
    assert SD1.betas[-1] == pytest.approx(0.012, rel=1e-14)
    roots = np.sqrt(SD1.betas)
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 999, rtol=1e-9)


def test_sigma_max_and_min_of_sd1_are_the_published_ones() -> None:
    assert SD1.sigmas[-1] == pytest.approx(14.6146, abs=1e-4)
    assert SD1.sigmas[0] == pytest.approx(0.0292, abs=1e-4)
    assert SD1.alphas_bar.dtype == SD1.sigmas.dtype == np.float64


@given(schedules(), st.floats(0, 1))
def test_sigma_and_timestep_are_inverses(schedule: Schedule, place: float) -> None:
    timestep = place * (len(schedule) - 1)
    assert float(schedule.timestep(schedule.sigma(timestep))) == pytest.approx(timestep, abs=1e-6)
    low, high = np.log(schedule.sigmas[[0, -1]])
    sigma = math.exp(low + place * (high - low))
    assert float(schedule.sigma(schedule.timestep(sigma))) == pytest.approx(sigma, rel=1e-9)


@given(st.integers(0, 999))
def test_both_interpolations_give_the_table_at_whole_timesteps(timestep: int) -> None:
    assert float(SD1.sigma(timestep)) == pytest.approx(SD1.sigmas[timestep], rel=1e-12)
    assert float(SD1.sigma_linear(timestep)) == pytest.approx(SD1.sigmas[timestep], rel=1e-12)


def test_between_timesteps_diffusers_takes_the_mean_sigma_and_k_diffusion_the_geometric_mean() -> None:
    a, b = SD1.sigmas[10], SD1.sigmas[11]
    assert float(SD1.sigma_linear(10.5)) == pytest.approx((a + b) / 2, rel=1e-12)
    assert float(SD1.sigma(10.5)) == pytest.approx(math.sqrt(a * b), rel=1e-12)


@pytest.mark.parametrize(
    ("sampler", "timesteps"),
    [
        ("ddpm", [831, 665, 499, 333, 167, 1]),
        ("ddim", [831, 665, 499, 333, 167, 1]),
        ("euler", [999, 799.2, 599.4, 399.6, 199.8, 0]),
        ("euler_a", [999, 799.2, 599.4, 399.6, 199.8, 0]),
        ("heun", [999, 799.2, 599.4, 399.6, 199.8, 0]),
        ("dpm++2m", [999, 832, 666, 500, 333, 166]),
    ],
)
def test_own_spacing_in_six_steps_is_the_known_one(sampler: str, timesteps: list[float]) -> None:
    assert list(make_sigma_schedule(SD1, sampler, None, 6).timesteps) == pytest.approx(timesteps, abs=1e-9)


@pytest.mark.parametrize(("sampler", "scheduler"), EVERY_PATH)
def test_every_path_of_sd1_falls_strictly_at_every_number_of_steps(
    sampler: str, scheduler: str | None
) -> None:
    for steps in (*range(1, 130), *range(130, 990, 43), *range(990, 1001)):
        path = make_sigma_schedule(SD1, sampler, scheduler, steps)
        assert len(path.sigmas) == steps + 1
        assert len(path.timesteps) == steps
        assert all(a > b for a, b in zip(path.sigmas, path.sigmas[1:], strict=False)), steps
        assert min(path.timesteps) >= 0
        assert max(path.timesteps) <= 999


@given(schedules(), st.sampled_from(EVERY_PATH), st.data())
def test_every_path_of_any_schedule_falls_strictly_within_it(
    schedule: Schedule, names: tuple[str, str | None], data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, len(schedule)))
    path = make_sigma_schedule(schedule, *names, steps)
    assert len(path.sigmas) == steps + 1
    assert all(a > b for a, b in zip(path.sigmas, path.sigmas[1:], strict=False))
    assert path.sigmas[0] <= schedule.sigmas[-1] * (1 + 1e-9)
    assert all(0 <= t <= len(schedule) - 1 for t in path.timesteps)
    assert list(path.timesteps) == sorted(path.timesteps, reverse=True)
    for sigma, timestep in zip(path.sigmas, path.timesteps, strict=False):
        assert path.timestep(sigma) == timestep


@pytest.mark.parametrize(("sampler", "scheduler"), EVERY_PATH)
def test_the_told_timestep_is_that_of_the_sigma_but_for_rounding(sampler: str, scheduler: str | None) -> None:
    path = make_sigma_schedule(SD1, sampler, scheduler, 25)
    off = np.abs(SD1.timestep(np.array(path.sigmas[:-1])) - path.timesteps).max()
    rounds = sampler in ("ddpm", "ddim", "dpm++2m")
    assert off <= {"karras": 0.5 * rounds, "exponential": 1.0 * rounds}.get(scheduler or "", 0.0) + 0.01


@pytest.mark.parametrize(("sampler", "scheduler"), EVERY_PATH)
def test_the_end_is_zero_but_for_ddim_which_ends_at_the_first_timestep(
    sampler: str, scheduler: str | None
) -> None:
    path = make_sigma_schedule(SD1, sampler, scheduler, 20)
    if sampler == "ddim" and scheduler in (None, "leading", "trailing"):
        assert path.sigmas[-1] == SD1.sigmas[0]
        assert path.end_scale == pytest.approx(math.sqrt(SD1.alphas_bar[0]), rel=1e-12)
    else:
        assert path.sigmas[-1] == 0.0
        assert path.end_scale == 1.0


@given(st.sampled_from(EVERY_PATH), st.integers(1, 60), st.data())
def test_a_tail_is_the_end_of_its_path(
    names: tuple[str, str | None], steps: int, data: st.DataObject
) -> None:
    path = make_sigma_schedule(SD1, *names, steps)
    left = data.draw(st.integers(0, steps))
    tail = path.tail(left)
    assert len(tail.timesteps) == left
    assert tail.sigmas == path.sigmas[steps - left :]
    assert tail.timesteps == path.timesteps[steps - left :]
    assert tail.end_scale == path.end_scale
    assert path.tail(steps) == path


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_that_no_path_has_are_refused_with_the_range(steps: int) -> None:
    with pytest.raises(UsageError, match=rf"{steps}, but this model takes from 1 to 1000"):
        make_sigma_schedule(SD1, "ddpm", None, steps)


def test_a_model_of_few_timesteps_says_its_own_range() -> None:
    with pytest.raises(UsageError, match="from 1 to 8"):
        make_sigma_schedule(Schedule(ScheduleConfig(timesteps=8)), "euler", "karras", 9)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_steps_from_strength_are_those_of_diffusers(steps: int, strength: float) -> None:
    left = steps_from_strength(steps, strength)
    assert left == min(int(steps * strength), steps)  # the pipeline's own expression
    assert 0 <= left <= steps


def test_strength_rounds_down_in_floating_point() -> None:
    assert steps_from_strength(100, 0.29) == 28
    assert steps_from_strength(50, 1.0) == 50
    assert steps_from_strength(30, 0.03) == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_timesteps_are_those_of_diffusers_at_every_number_of_steps(sampler: str, spacing: str) -> None:
    from support.diffusion import reference_scheduler

    scheduler = reference_scheduler(sampler, timestep_spacing=spacing)
    for steps in range(2, 999):
        if spacing == "trailing" and len(np.arange(1000, 0, -1000 / steps)) > steps:
            continue  # there diffusers runs one step too many, at timestep −1
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.numpy().astype(np.float64)
        if sampler == "heun":
            theirs = np.concatenate([theirs[:1], theirs[1::2]])
        np.testing.assert_allclose(
            make_sigma_schedule(SD1, sampler, spacing, steps).timesteps, theirs, atol=1e-4
        )
