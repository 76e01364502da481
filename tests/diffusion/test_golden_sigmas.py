"""Noise levels and timesteps that A1111, Forge and ComfyUI computed themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.diffusion.levels import COMFYUI, WEBUI
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import as_kept, make_sigma_schedule, shortened, with_levels
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig
from support.shared import BESIDE_THE_PROJECT, shared_path

SD1 = Schedule(ScheduleConfig())
TOLERANCE = 1e-5
TOOLS = {"a1111": "a1111", "forge": "forge", "comfy": "comfyui"}

NAMES = {
    "Uniform": "normal",
    "align_your_steps SD1 (node)": "align_your_steps",
    "vp (own defaults)": "vp",
    "laplace (min,max of table)": "laplace",
}


@cache
def golden() -> dict[str, Any]:
    return json.loads(shared_path("golden", "sigmas.json").read_text())


def tables() -> dict[str, Any]:
    path = BESIDE_THE_PROJECT / "golden" / "sigmas.json"
    return json.loads(path.read_text()) if path.exists() else {}


def scheduler_of(name: str) -> str:
    return parse_scheduler(NAMES.get(name, name))


def entries(kind: str) -> Iterator[tuple[str, str, str]]:
    for tool, table in tables().items():
        for name in table.get(kind, {}):
            yield tool, name, kind


def assert_close(ours: Sequence[float], theirs: Sequence[Any], what: str) -> None:
    assert len(ours) == len(theirs), what
    np.testing.assert_allclose(ours, np.array(theirs, dtype=float), rtol=TOLERANCE, atol=0, err_msg=what)


def levels_of(tool: str, name: str, steps: int, schedule: Schedule) -> list[float]:
    if tool == "a1111":
        schedule = schedule.in_float32
    formulas = COMFYUI if tool == "comfy" else WEBUI
    return formulas[scheduler_of(name)](schedule, steps).tolist()


@pytest.mark.parametrize(("tool", "name", "kind"), list(entries("schedules")))
def test_levels_of_every_spacing(tool: str, name: str, kind: str) -> None:
    for key, theirs in golden()[tool][kind][name].items():
        steps, _, coefficient = key.partition("@")
        if coefficient and coefficient != "1.2":
            continue
        if "nan" in theirs:
            with pytest.raises(UsageError, match="2 steps"):
                levels_of(tool, name.split(" (")[0].split()[0] if "node" in name else name, int(steps), SD1)
            continue
        name = "gits" if name.startswith("gits") else name
        assert_close(levels_of(tool, name, int(steps), SD1), theirs, f"{name} {key}")


@pytest.mark.parametrize(("tool", "name", "kind"), list(entries("discard_penultimate")))
def test_levels_without_the_last_but_one(tool: str, name: str, kind: str) -> None:
    for steps, theirs in golden()[tool][kind][name].items():
        path = make_sigma_schedule(SD1, "dpm2", scheduler_of(name), int(steps), like=TOOLS[tool])
        assert_close(path.sigmas, theirs, f"{name} {steps}")


@pytest.mark.parametrize("tool", ["a1111", "forge"])
def test_every_samplers_own_spacing_in_the_web_uis(tool: str) -> None:
    for label, row in golden()[tool]["sampler_defaults"].items():
        sampler, _ = parse_sampler(label)
        path = make_sigma_schedule(SD1, sampler, None, row["steps"], like=tool)
        assert_close(path.sigmas, row["sigmas"], label)
        assert path.start_scale == path.sigmas[0]
        assert path.end_scale == 1.0


@pytest.mark.parametrize("tool", ["a1111", "forge"])
def test_timestep_samplers_of_the_web_uis(tool: str) -> None:
    for steps, theirs in golden()[tool]["ddim_timesteps"].items():
        for sampler in ("ddim", "plms"):
            path = make_sigma_schedule(SD1, sampler, None, int(steps), like=tool)
            assert list(path.timesteps) == theirs[:0:-1]
            assert path.sigmas[-1] == pytest.approx(float(SD1.sigmas[theirs[0]]), rel=TOLERANCE)


@pytest.mark.parametrize("tool", ["a1111", "forge"])
def test_image_to_image_in_the_web_uis(tool: str) -> None:
    for row in golden()[tool]["img2img"]:
        counting = {"like": tool, "exactly": row["fixed_steps"]}
        for key, theirs in row.items():
            if key.startswith("sigmas_"):
                _, name, *discard = key.split("_")
                sampler = "dpm2" if discard else "euler"
                path = shortened(SD1, sampler, scheduler_of(name), row["steps"], row["strength"], **counting)
                assert_close(path.sigmas, theirs, f"{row['strength']} {key}")
                assert len(path.timesteps) == row["t_enc"] + 1
        path = shortened(SD1, "ddim", None, row["steps"], row["strength"], **counting)
        assert list(path.timesteps) == row["ddim_timesteps"][:0:-1]
        # the picture gets the noise of one level, and is told to be at the level below
        alpha_bar = SD1.alphas_bar[row["ddim_start_timestep"]]
        whole = math.sqrt(1.0 + path.sigmas[0] ** 2)
        assert path.init_scale / whole == pytest.approx(math.sqrt(alpha_bar), rel=TOLERANCE)
        assert path.start_scale / whole == pytest.approx(math.sqrt(1.0 - alpha_bar), rel=TOLERANCE)


def test_image_to_image_in_comfyui() -> None:
    for row in golden()["comfy"]["denoise"]:
        sampler, _ = parse_sampler(row["sampler"])
        path = shortened(
            SD1, sampler, scheduler_of(row["scheduler"]), row["steps"], row["denoise"], like="comfyui"
        )
        assert_close(path.sigmas, row["sigmas"], f"{row['denoise']} {row['scheduler']} {sampler}")


@pytest.mark.parametrize("tool", list(TOOLS))
def test_what_the_network_is_told(tool: str) -> None:
    table = golden()[tool]
    for key in ("sigma_to_t", "sigma_to_t_karras_10", "timestep", "timestep_karras_10"):
        for sigma, theirs in table.get(key, []):
            path = make_sigma_schedule(SD1, "euler", "karras", 10, like=TOOLS[tool])
            assert path.timestep(sigma) == pytest.approx(theirs, rel=TOLERANCE, abs=2e-3), sigma


@pytest.mark.parametrize("tool", list(TOOLS))
def test_zero_terminal_snr(tool: str) -> None:
    zero = Schedule(ScheduleConfig(), zero_snr=True)
    zero = as_kept(zero, CONVENTIONS[TOOLS[tool]])
    table = golden()[tool]["zero_terminal_snr"]
    np.testing.assert_allclose(zero.sigmas[-1], table["sigma_max"], rtol=1e-6)
    # Forge rescales ᾱ in float32, of which little is left near both ends: one unit there is 3e-5 of σ
    allowed = 5e-5 if tool == "forge" else TOLERANCE
    np.testing.assert_allclose(zero.sigmas[-5:], table["last5"], rtol=allowed)
    for name, rows in table["schedules"].items():
        for steps, theirs in rows.items():
            ours = levels_of("comfy" if tool == "comfy" else "forge", name, int(steps), zero)
            np.testing.assert_allclose(ours, theirs, rtol=allowed, err_msg=name)


def test_where_sampling_starts_in_comfyui() -> None:
    comfyui = CONVENTIONS["comfyui"]
    for row in golden()["comfy"]["noise_scaling"]:
        path = with_levels(SD1, comfyui, np.array([row["sigma"], 0.0]))
        full = row["sigma"] >= 14.6
        if row["max_denoise"] == full:
            assert row["latent"] + row["noise"] * path.start_scale == pytest.approx(row["x"], rel=1e-6)


def test_shares_of_the_sampling_in_comfyui() -> None:
    for share, theirs in golden()["comfy"]["percent_to_sigma"][1:]:
        assert SD1.sigma_at_share(share) == pytest.approx(theirs, rel=TOLERANCE)
