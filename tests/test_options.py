"""What can be asked for: ranges, spellings, and what a model decides where nothing was asked."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, fields
from typing import Any

import pytest

from sdscratch.errors import UsageError
from sdscratch.options import (
    DTYPES,
    MAX_SEED,
    SAMPLERS,
    SCHEDULERS,
    Defaults,
    GenerateOptions,
    ResolvedOptions,
    check_placement,
    parse_interval,
    parse_sampler,
    parse_scheduler,
    random_seed,
    size_of_init,
)
from sdscratch.settings import settings_of

SMALL = Defaults(width=64, height=72, steps=20, cfg_scale=4.0, sampler="euler", scheduler="karras")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("width", 65, "the width is 65, but must be a multiple of 8 and at least 64"),
        ("height", 56, "the height is 56, but must be a multiple of 8 and at least 64"),
        ("width", 0, "the width is 0"),
        ("height", -64, "the height is -64"),
        ("steps", 0, "steps is 0, but must be from 1 to 1000"),
        ("steps", 1001, "steps is 1001"),
        ("cfg_scale", math.nan, "cfg-scale is nan"),
        ("cfg_scale", math.inf, "cfg-scale is inf"),
        ("cfg_scale", -1.0, "cfg-scale is -1.0"),
        ("strength", 2.0, "strength is 2.0, but must be from 0 to 1"),
        ("strength", math.nan, "strength is nan"),
        ("strength", -0.1, "strength is -0.1"),
        ("eta", 1.5, "eta is 1.5"),
        ("seed", -1, "seed is -1"),
        ("seed", MAX_SEED + 1, f"but must be from 0 to {MAX_SEED}"),
        ("clip_skip", 12, "clip-skip is 12"),
        ("deep_cache", 0, "deep-cache is 0, but must be from 1 to 100"),
        ("tile", 64, "tile is 64, but must be 0, or a multiple of 8 and at least 128"),
        ("tile", 129, "tile is 129"),
        ("tile", -128, "tile is -128"),
        ("cfg_interval", "1", "the cfg-interval is '1', but must be FROM:TO"),
        ("cfg_interval", "5:1", "the cfg-interval is '5:1'"),
        ("cfg_interval", "-1:1", "the cfg-interval is '-1:1'"),
        ("cfg_interval", "nan:1", "the cfg-interval is 'nan:1'"),
        ("cfg_interval", "a:b", "the cfg-interval is 'a:b'"),
        ("sampler", "frob", "no sampler is called 'frob'; choose one of ddpm, ddim, "),
        ("scheduler", "frob", "no scheduler is called 'frob'; choose one of leading, "),
        ("prompt", "a d\udcf6g", "character 4 of the prompt is not valid text; give it in UTF-8"),
        ("negative_prompt", "\ud800", "character 1 of the negative prompt is not valid text"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenerateOptions(**{"prompt": "a dog", name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 64, "height": 2048},
        {"steps": 1},
        {"steps": 1000},
        {"cfg_scale": 0.0},
        {"strength": 0.0},
        {"strength": 1.0},
        {"seed": 0},
        {"seed": MAX_SEED},
        {"prompt": "größe 🐕 \0"},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_allowed(options: dict[str, Any]) -> None:
    GenerateOptions(**({"prompt": ""} | options))


@pytest.mark.parametrize(
    ("text", "interval"),
    [("0.28:5.42", (0.28, 5.42)), (":5", (0.0, 5.0)), ("0.3:", (0.3, math.inf)), (":", (0.0, math.inf))],
)
def test_an_interval_is_two_noise_levels_either_of_which_may_be_left_out(
    text: str, interval: tuple[float, float]
) -> None:
    assert parse_interval(text) == interval


def test_the_model_decides_what_was_not_asked() -> None:
    resolved = GenerateOptions("a dog").resolve(SMALL, seed=9)
    assert (resolved.width, resolved.height, resolved.steps, resolved.cfg_scale) == (64, 72, 20, 4.0)
    assert (resolved.sampler, resolved.scheduler, resolved.seed) == ("euler", "karras", 9)


def test_what_was_asked_stands_whatever_the_model_likes() -> None:
    asked = GenerateOptions(
        "a dog", "a cat", width=128, height=64, steps=3, cfg_scale=0.0, seed=0, sampler="DDIM",
        scheduler="Trailing", eta=0.5, clip_skip=1, strength=0.0,
    )  # fmt: skip
    resolved = asked.resolve(SMALL, seed=9)
    assert (resolved.width, resolved.height, resolved.steps, resolved.cfg_scale) == (128, 64, 3, 0.0)
    assert (resolved.sampler, resolved.scheduler, resolved.seed) == ("ddim", "trailing", 0)
    assert (resolved.prompt, resolved.negative_prompt) == ("a dog", "a cat")
    assert (resolved.eta, resolved.clip_skip, resolved.strength) == (0.5, 1, 0.0)


def test_a_sampler_asked_for_brings_its_own_spacing() -> None:
    def scheduler(**asked: str) -> str | None:
        return GenerateOptions("a dog", **asked).resolve(SMALL, seed=0).scheduler  # type: ignore[arg-type]

    assert scheduler(sampler="ddpm") is None
    assert scheduler(sampler="k_euler") == "karras"  # the model's own sampler by another name
    assert scheduler(sampler="Euler a Exponential") == "exponential"
    assert scheduler(sampler="DPM++ 2M Karras", scheduler="normal") == "normal"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_are_known_by_their_own_names_in_any_case(sampler: str) -> None:
    for spelling in (sampler, sampler.upper(), sampler.replace("_", " "), f" {sampler}"):
        assert parse_sampler(spelling) == (sampler, None)
    for scheduler in SCHEDULERS:
        assert parse_sampler(f"{sampler} {scheduler.capitalize()}") == (sampler, scheduler)


@pytest.mark.parametrize(
    ("spelling", "sampler"),
    [
        ("Euler a", "euler_a"),
        ("k_euler_a", "euler_a"),
        ("euler_ancestral", "euler_a"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("EulerDiscreteScheduler", "euler"),
        ("DPM++ 2M", "dpm++2m"),
        ("dpmpp_2m", "dpm++2m"),
        ("k_dpmpp_2m", "dpm++2m"),
        ("DPMSolverMultistepScheduler", "dpm++2m"),
        ("HeunDiscreteScheduler", "heun"),
        ("k_heun", "heun"),
        ("DDIMScheduler", "ddim"),
        ("DDPMScheduler", "ddpm"),
    ],
)
def test_samplers_are_known_by_other_tools_names(spelling: str, sampler: str) -> None:
    assert parse_sampler(spelling) == (sampler, None)


@pytest.mark.parametrize("name", ["", "karras", "DPM++ 3M", "dpm2m", "euler b", "DPM++ 4M Karras"])
def test_samplers_that_are_not_here_are_not_guessed(name: str) -> None:
    with pytest.raises(UsageError):
        parse_sampler(name)


def test_schedulers_are_known_in_any_case() -> None:
    assert [parse_scheduler(name.upper()) for name in SCHEDULERS] == list(SCHEDULERS)
    with pytest.raises(UsageError):
        parse_scheduler("")


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:15"])
@pytest.mark.parametrize("dtype", ["auto", *DTYPES])
def test_devices_and_precisions_have_names(device: str, dtype: str) -> None:
    check_placement(device, dtype)


@pytest.mark.parametrize(
    "device", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:01", "cuda:128", "cuda:1\n", "meta"]
)
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match=r"no device is called .* say auto, cpu, cuda"):
        check_placement(device, "auto")


@pytest.mark.parametrize("dtype", ["", "fp16", "half", "float64", "int4"])
def test_other_precisions_are_refused(dtype: str) -> None:
    with pytest.raises(UsageError, match=r"no precision is called .* say auto, float32, bfloat16, float16"):
        check_placement("cpu", dtype)


def test_a_picture_has_its_inits_size_rounded_down_to_8() -> None:
    asked = GenerateOptions("a dog")
    sized = size_of_init(asked, (79, 64))
    assert (sized.width, sized.height) == (72, 64)
    sized = size_of_init(GenerateOptions("a dog", width=128, height=64), (10, 5000))
    assert (sized.width, sized.height) == (128, 64)
    with pytest.raises(
        UsageError, match="the init picture is 63x200, too small; ask for a --size of at least 64x64"
    ):
        size_of_init(asked, (63, 200))


def test_chance_gives_seeds_short_enough_to_type() -> None:
    state = random.getstate()
    seeds = set()
    for _ in range(20):
        random.setstate(state)  # what seeds the world's random numbers must not seed ours
        seeds.add(random_seed())
    assert len(seeds) == 20
    assert all(0 <= seed < 2**32 for seed in seeds)


RESOLVED = asdict(GenerateOptions("a dog").resolve(SMALL, seed=9))


@pytest.mark.parametrize("name", RESOLVED)
def test_resolved_options_are_told_everything(name: str) -> None:
    assert asdict(ResolvedOptions(**RESOLVED)) == RESOLVED
    with pytest.raises(TypeError, match=f"'{name}'"):
        ResolvedOptions(**{key: value for key, value in RESOLVED.items() if key != name})


def test_resolved_options_take_keywords_alone() -> None:
    with pytest.raises(TypeError):
        ResolvedOptions(*RESOLVED.values())  # type: ignore[misc]


def test_every_option_is_asked_for_by_its_name_and_says_what_it_is() -> None:
    assert [each.name for each in fields(GenerateOptions)] == [each.name for each in fields(ResolvedOptions)]
    for name, about in settings_of(ResolvedOptions).items():
        assert about.help.endswith("."), name
        assert not about.help.startswith(("Of ", "Or ")), name
