"""Against k-diffusion's published algorithms, written here from their formulas in float64, plainly.

Sources: Karras et al. 2022 (algorithms 1 and 2, eq. 5), Song et al. 2021 (DDIM's ancestral step), Lu et al.
2022 (DPM-Solver++, algorithm 2, in λ = −log σ), and k-diffusion's rules for what lies between timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import network_denoiser
from sdscratch.diffusion.noise import Noise
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from support.diffusion import NETWORKS, random_network, relative_error

TOLERANCE = 1e-4
SHAPE = (4, 6, 5)
SEEDS = (3, 4)
CONTEXT = torch.linspace(-1, 1, 30).reshape(2, 3, 5)

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS_BAR = torch.cumprod(1 - BETAS, 0)
LOG_SIGMAS = (((1 - ALPHAS_BAR) / ALPHAS_BAR) ** 0.5).log()


def sigma_of(t: float) -> float:
    """Between two timesteps, log σ is interpolated."""
    low, high = math.floor(t), math.ceil(t)
    return math.exp((1 - (t - low)) * LOG_SIGMAS[low].item() + (t - low) * LOG_SIGMAS[high].item())


def timestep_of(sigma: float) -> float:
    """Its inverse, by search."""
    low, high = 0.0, 999.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_of(middle) < sigma else (low, middle)
    return (low + high) / 2


def plain_sigmas(n: int) -> list[float]:
    return [sigma_of(999 - 999 * i / max(n - 1, 1)) for i in range(n)] + [0.0]


def karras_sigmas(n: int) -> list[float]:
    high, low = sigma_of(999), sigma_of(0)
    rho = 7
    return [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)
    ] + [0]


Model = Callable[[Tensor, float], Tensor]


def sample_euler(model: Model, x: Tensor, sigmas: list[float], noise: Noise) -> list[Tensor]:
    latents = []
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i])) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
        latents.append(x)
    return latents


def sample_euler_ancestral(model: Model, x: Tensor, sigmas: list[float], noise: Noise) -> list[Tensor]:
    latents = []
    for i in range(len(sigmas) - 1):
        above, below = sigmas[i], sigmas[i + 1]
        up = min(below, (below**2 * (above**2 - below**2) / above**2) ** 0.5)
        down = (below**2 - up**2) ** 0.5
        d = (x - model(x, above)) / above
        x = x + d * (down - above)
        if below > 0:
            x = x + noise().double() * up
        latents.append(x)
    return latents


def sample_heun(model: Model, x: Tensor, sigmas: list[float], noise: Noise) -> list[Tensor]:
    latents = []
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i])) / sigmas[i]
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = x + d * dt
        else:
            predicted = x + d * dt
            d_next = (predicted - model(predicted, sigmas[i + 1])) / sigmas[i + 1]
            x = x + (d + d_next) / 2 * dt
        latents.append(x)
    return latents


def sample_dpmpp_2m(model: Model, x: Tensor, sigmas: list[float], noise: Noise) -> list[Tensor]:
    latents = []
    times = [-math.log(s) if s else math.inf for s in sigmas]
    old = None
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i])
        h = times[i + 1] - times[i]
        if old is None or sigmas[i + 1] == 0:
            blend = denoised
        else:
            r = (times[i] - times[i - 1]) / h
            blend = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old
        x = math.exp(-times[i + 1]) / math.exp(-times[i]) * x - math.expm1(-h) * blend
        old = denoised
        latents.append(x)
    return latents


ALGORITHMS = {
    "euler": sample_euler,
    "euler_a": sample_euler_ancestral,
    "heun": sample_heun,
    "dpm++2m": sample_dpmpp_2m,
}
SPACINGS = {"normal": plain_sigmas, "karras": karras_sigmas}


def model_of(network: Callable[..., Tensor], prediction: str, whole_timesteps: bool) -> Model:
    def model(x: Tensor, sigma: float) -> Tensor:
        t = timestep_of(sigma)
        t = round(t) if whole_timesteps else t
        inside = x / (sigma**2 + 1) ** 0.5
        output = network(
            inside, torch.full((len(x),), t, dtype=torch.float64), Conditioning(CONTEXT.double())
        )
        if prediction == "epsilon":
            return x - sigma * output
        return output * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)

    return model


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("steps", [5, 8, 20, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", ALGORITHMS)
def test_every_step_is_that_of_k_diffusion(sampler: str, spacing: str, steps: int, prediction: str) -> None:
    path = make_sigma_schedule(Schedule(ScheduleConfig()), sampler, spacing, steps)
    sigmas = SPACINGS[spacing](steps)
    assert path.sigmas == pytest.approx(sigmas, rel=1e-9)
    for seed, kind in enumerate(NETWORKS):
        network = random_network(kind, seed)
        ours = our_latents(path, sampler, network, prediction)
        # at Karras' sigmas DPM++ 2M follows diffusers, which tells the network rounded timesteps
        whole = (sampler, spacing) == ("dpm++2m", "karras")
        noise = Noise(SEEDS, SHAPE)
        start = noise().double() * path.start_scale
        theirs = ALGORITHMS[sampler](model_of(network, prediction, whole), start, sigmas, noise)
        for a, b in zip(ours, theirs, strict=True):
            assert relative_error(a, b) <= TOLERANCE


def our_latents(
    path: SigmaSchedule, sampler: str, network: Callable[..., Tensor], prediction: str
) -> list[Tensor]:
    denoise = network_denoiser(network, path, prediction, Conditioning(CONTEXT))
    noise = Noise(SEEDS, SHAPE)
    return [s.latent for s in SAMPLERS[sampler](denoise, noise() * path.start_scale, path.sigmas, noise)]


def test_normal_starts_at_sigma_max_and_ends_at_zero_for_every_sampler() -> None:
    schedule = Schedule(ScheduleConfig())
    for sampler in SAMPLERS:
        path = make_sigma_schedule(schedule, sampler, "normal", 20)
        assert path.start_scale == path.sigmas[0] == pytest.approx(sigma_of(999))
        assert path.sigmas[-1] == 0.0
        assert path.timesteps == pytest.approx([999 * i / 19 for i in reversed(range(20))])
