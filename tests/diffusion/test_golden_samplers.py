"""Trajectories that k-diffusion, Forge, ComfyUI and diffusers computed themselves, on a toy denoiser."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.conventions import sampler_parameters
from sdscratch.diffusion.samplers import SAMPLERS, Denoiser, Step
from sdscratch.diffusion.samplers.consistency import boundary_scaled
from sdscratch.diffusion.schedule import Schedule
from sdscratch.models.config import ScheduleConfig
from support.absent import absent
from support.shared import BESIDE_THE_PROJECT, shared_path

SD1 = Schedule(ScheduleConfig())

# the tools' names of what we call otherwise
NAMES = {
    "euler_ancestral": "euler_a",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpm++2s_a",
    "dpmpp_sde": "dpm++sde",
    "dpmpp_2m": "dpm++2m",
    "dpmpp_2m_sde": "dpm++2m_sde",
    "dpmpp_2m_sde_heun": "dpm++2m_sde_heun",
    "dpmpp_3m_sde": "dpm++3m_sde",
    "res_multistep_ancestral": "res_multistep_a",
    "euler_cfg_pp": "euler_cfg++",
    "euler_ancestral_cfg_pp": "euler_a_cfg++",
    "dpmpp_2s_ancestral_cfg_pp": "dpm++2s_a_cfg++",
    "dpmpp_2m_cfg_pp": "dpm++2m_cfg++",
    "res_multistep_cfg_pp": "res_multistep_cfg++",
    "res_multistep_ancestral_cfg_pp": "res_multistep_a_cfg++",
    "gradient_estimation_cfg_pp": "gradient_estimation_cfg++",
    "restart_sampler": "restart",
    "unipc": "unipc",
    "unipc_bh2": "unipc_bh2",
}
TIMESTEPS = {"ddim", "plms", "unipc"}  # Forge's family in variance-preserving scale


@cache
def golden() -> tuple[dict[str, Any], Mapping[str, Any]]:
    table = json.loads(shared_path("golden", "samplers.json").read_text())
    return table, np.load(shared_path("golden", "samplers.npz"))


def rows() -> list[dict[str, Any]]:
    path = BESIDE_THE_PROJECT / "golden" / "samplers.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


ROWS = [row for row in rows() if "error" not in row]


def toy(sign: float = 1.0) -> Denoiser:
    """The exact denoiser of a mixture of two normal distributions, the means' sign turned or not."""
    j = torch.arange(64, dtype=torch.float64).reshape(1, 4, 4, 4)
    means = torch.stack([-0.8 + 0.3 * torch.sin(j), 0.9 + 0.2 * torch.cos(2 * j)]) * sign
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    stds = torch.tensor([0.5, 0.35], dtype=torch.float64).reshape(2, 1, 1, 1, 1)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        variance = stds**2 + sigma**2
        share = torch.softmax(
            weights.log() - variance.log() / 2 - (x.double() - means) ** 2 / (2 * variance), 0
        )
        return (share * (means + stds**2 / variance * (x.double() - means))).sum(0).to(x.dtype)

    return denoise


class Draws:
    """The golden noises in their order, whatever the interval."""

    def __init__(self, noise: Any) -> None:
        self.noise, self.asked = noise, []

    def __call__(self, *interval: float) -> Tensor:
        self.asked.append(interval)
        return torch.from_numpy(self.noise[len(self.asked) - 1]).double()


def name_of(row: Mapping[str, Any]) -> str:
    function = (row.get("function") or "").removeprefix("sample_")
    return NAMES.get(function, function)


def run(row: Mapping[str, Any]) -> tuple[list[Step], Draws]:
    table, arrays = golden()
    name = name_of(row)
    options = {key: value for key, value in row["options"].items() if key != "return_info"}
    options |= sampler_parameters("comfyui", name) if row["tool"] == "comfy" else {}
    sigmas = table["schedules"][row["schedule"]]
    x = torch.from_numpy(arrays["x0"]).to(getattr(torch, row["dtype"])) * sigmas[0]
    draws = Draws(arrays["noise"])
    denoise = toy()
    if row["cfgpp_model"]:
        conditional, without = denoise, toy(-1.0)
        scale = table["toy"]["cfgpp_scale_comfy"]
        options["unconditional"] = without

        def denoise(x: Tensor, sigma: float) -> Tensor:
            plain = without(x, sigma)
            return plain + scale * (conditional(x, sigma) - plain)

    return list(SAMPLERS[name](denoise, x, sigmas, draws, **options)), draws


def relative(ours: Tensor, theirs: Any) -> float:
    return float((ours - torch.from_numpy(theirs)).abs().max() / np.abs(theirs).max())


SIGMA_ROWS = [row for row in ROWS if "schedule" in row]

# What the reference computes in float32 whatever the latent's precision, at the tolerance of that: restarts'
# spacing, DEIS' and ER-SDE's sums. UniPC in ComfyUI runs in float32 alone.
IN_FLOAT32 = {
    "deis": 1e-6,
    "restart_list": 1e-5,
    "restart": 1e-7,
    "er_sde": 1e-8,
    "dpm_adaptive_eta0.3": 1e-8,
}


def tolerance(row: Mapping[str, Any]) -> float:
    if row.get("dtype") == "float32":
        return 1e-5
    name = row["sampler"]
    return IN_FLOAT32.get(name, IN_FLOAT32.get(name.split("_order")[0], 1e-9))


@pytest.mark.parametrize("row", SIGMA_ROWS, ids=lambda row: row["key"])
def test_the_tools_own_trajectories(row: dict[str, Any]) -> None:
    steps, draws = run(row)
    arrays = golden()[1]
    assert relative(steps[-1].latent, arrays[f"{row['key']}/final"]) <= tolerance(row)
    estimates = torch.stack([step.denoised for step in steps])
    assert relative(estimates, arrays[f"{row['key']}/denoised"]) <= max(
        tolerance(row), 1e-6, row["float32_max_diff"]
    )
    for interval, asked in zip(row["noise_pairs"] or [], draws.asked, strict=False):
        if asked and interval:
            assert asked == pytest.approx(interval, rel=1e-6)


# Forge's samplers by timestep: ours go through the same noise levels in σ-space.


def variance_preserving(x: Tensor, sigma: float) -> Tensor:
    return x / math.sqrt(1.0 + sigma**2)


def seen_at(told: Mapping[float, float]) -> Denoiser:
    """The denoiser by the noise that a network would see in x, told a timestep that may be another σ's."""
    denoise = toy()

    def denoise_seen(x: Tensor, sigma: float) -> Tensor:
        level = float(SD1.sigma(told[sigma]))
        seen = variance_preserving(x, sigma) * math.sqrt(1.0 + level**2)
        return x - sigma * (seen - denoise(seen, level)) / level

    return denoise_seen


def log_alpha_interpolated(timesteps: Sequence[float]) -> list[float]:
    """σ between two timesteps as UniPC's own reference has it: log ᾱ is interpolated, not log σ."""
    log_alphas = np.interp(timesteps, np.arange(1000), np.log(SD1.alphas_bar))
    return np.sqrt(np.expm1(-log_alphas)).tolist()


def run_by_timestep(row: Mapping[str, Any]) -> Tensor:
    table, arrays = golden()
    options = dict(row["options"])
    timesteps = row["timesteps"][::-1]
    name = row["function"].removesuffix("_cfgpp")
    conditional, without = toy(), toy(-1.0)
    denoise: Denoiser = conditional
    if name == "unipc":
        del options["uni_pc_skip_type"]
        timesteps = [*row["model_timesteps"], 0.0]
        options = {key.removeprefix("uni_pc_"): value for key, value in options.items()}
    if row["cfgpp_model"]:
        name, scale = "euler_cfg++", table["toy"]["cfgpp_scale_timesteps"] / 12.5
        options["unconditional"] = without

        def denoise(x: Tensor, sigma: float) -> Tensor:
            plain = without(x, sigma)
            return plain + scale * (conditional(x, sigma) - plain)

    sigmas = [float(sigma) for sigma in SD1.sigma(np.array(timesteps))]
    if name == "unipc":
        sigmas = log_alpha_interpolated(timesteps)
        denoise = seen_at(dict(zip(sigmas, timesteps, strict=True)))
    x = torch.from_numpy(arrays["x0"]) * math.sqrt(1.0 + sigmas[0] ** 2)
    *_, step = SAMPLERS[name](denoise, x, sigmas, Draws(arrays["noise"]), **options)
    return variance_preserving(step.latent, sigmas[-1])


TIMESTEP_ROWS = [row for row in ROWS if row.get("function") in {"ddim", "ddim_cfgpp", "plms", "unipc"}]
TIMESTEP_ROWS = [row for row in TIMESTEP_ROWS if row["tool"] == "forge"]


@pytest.mark.parametrize("row", TIMESTEP_ROWS, ids=lambda row: row["key"])
def test_trajectories_by_timestep(row: dict[str, Any]) -> None:
    assert relative(run_by_timestep(row), golden()[1][f"{row['key']}/final"]) <= 1e-6


FEW_ROWS = [row for row in ROWS if row["sampler"] in {"lcm_full"} or row["tool"] == "diffusers"]


@pytest.mark.parametrize("row", FEW_ROWS, ids=lambda row: row["key"])
def test_trajectories_of_consistency_models(row: dict[str, Any]) -> None:
    arrays = golden()[1]
    by_timestep = row["tool"] == "diffusers"
    sigmas = row.get("sigmas") or [*(float(SD1.sigmas[t]) for t in row["timesteps"]), 0.0]
    told = dict(zip(sigmas, row["timesteps"], strict=False))
    denoise = seen_at(told)
    if "lcm" in row["sampler"]:
        denoise = boundary_scaled(denoise, told.__getitem__, in_sigma_space=not by_timestep)
    if row["sampler"] == "tcd":
        sigmas[-1] = float(SD1.sigmas[0])
    start = math.sqrt(1.0 + sigmas[0] ** 2) if by_timestep else sigmas[0]
    x = torch.from_numpy(arrays["x0"]) * start
    sampler = SAMPLERS["tcd" if row["sampler"] == "tcd" else "lcm"]
    *_, step = sampler(denoise, x, sigmas, Draws(arrays["noise"]), **row.get("options", {}))
    assert relative(variance_preserving(step.latent, sigmas[-1]), arrays[f"{row['key']}/final"]) <= 1e-5


def test_every_golden_row_is_compared() -> None:
    if not ROWS:
        absent("golden/samplers.json")
    assert len(SIGMA_ROWS) + len(TIMESTEP_ROWS) + len(FEW_ROWS) == len(ROWS) > 200
