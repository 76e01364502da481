"""What `bench` measures: forms and arithmetic, never how long anything takes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdscratch.bench.approximations import compared
from sdscratch.bench.machine import watch_memory
from sdscratch.bench.measure import Report, Stage, measure, numbered, step_operations
from sdscratch.bench.pictures import distance
from sdscratch.bench.random_model import random_model
from sdscratch.checkpoints.model import open_model
from sdscratch.device import choose
from sdscratch.generation.pipeline import Pipeline
from sdscratch.models.config import SD1
from sdscratch.options import GenerateOptions
from support.checkpoints import TINY
from support.pictures import gradient

CPU = choose("cpu", "float32")
ONE_STEP = GenerateOptions("a dog", width=64, height=64, steps=1, seed=0, sampler="euler")


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> Report:
    files = open_model(str(tiny_model))
    options = ONE_STEP.resolve(files.defaults, 0)
    return measure(files, CPU, options, batches=[1, 2], repeats=2, compare=True, approximate=True)


def test_every_stage_is_timed_as_often_as_asked(report: Report) -> None:
    alone = ["load", "text encoding", "step", "decode", "picture"]
    assert list(report.stages) == [*alone, *(f"{name}, 2 at once" for name in alone[1:])]
    for name, stage in report.stages.items():
        assert len(stage.seconds) == 2
        assert min(stage.seconds) > 0.0
        assert stage.pictures == (2 if "at once" in name else 1)


def test_a_picture_is_its_stages_together(report: Report) -> None:
    text, step, decode, picture = (report.stages[name].seconds for name in list(report.stages)[1:5])
    assert picture == pytest.approx([sum(parts) for parts in zip(text, step, decode, strict=True)])


def test_a_report_is_json_and_says_where_it_was_made(report: Report) -> None:
    record = json.loads(json.dumps(report.record(), allow_nan=False))
    assert record["machine"]["processor"]
    assert record["machine"]["dtype"] == "float32"
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert set(record["machine"]["versions"]) == {"sdscratch", "torch", "python"}
    assert record["options"]["steps"] == 1
    assert record["stages"]["step"]["median"] == report.stages["step"].median


def test_the_cpu_in_float32_is_at_parity_with_itself(report: Report) -> None:
    assert report.parity is not None
    assert (report.parity.most, report.parity.mean, report.parity.psnr) == (0, 0.0, None)


def test_approximations_say_what_they_gain_and_how_far_they_lead(report: Report) -> None:
    assert {kind.name for kind in report.approximations} >= {"--cfg-interval 0.28:5.42", "--deep-cache 3"}
    assert all(kind.faster > 0.0 for kind in report.approximations)
    # a picture of one step has no second one that could be cached
    assert {kind.name: kind.psnr for kind in report.approximations}["--deep-cache 3"] is None


def test_a_gain_is_the_exact_ways_median_by_the_fast_ones() -> None:
    black, white = (Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
    found = compared("", [6.0, 8.0, 100.0], [1.0, 4.0, 9.0], [black, black, black], [black, white, white])
    assert (found.faster, found.psnr) == (2.0, 0.0)


def test_the_median_and_what_is_reckoned_from_it() -> None:
    assert Stage((3.0, 1.0, 2.0)).median == 2.0
    stages = {"text encoding": Stage((0.5,)), "step": Stage((2.0, 4.0)), "decode": Stage((1.0,))}
    report = Report(None, "m", ONE_STEP.resolve(open_model("default").defaults, 0), 10, stages)  # type: ignore[arg-type]
    assert report.whole_picture == 0.5 + 10 * 3.0 + 1.0


def test_no_prompt_is_met_twice_and_all_take_as_long() -> None:
    options = ONE_STEP.resolve(open_model("default").defaults, 0)
    prompts = [
        text for i in (1, 2) for text in (numbered(options, i).prompt, numbered(options, i).negative_prompt)
    ]
    assert prompts == ["a dog 1", " 1", "a dog 2", " 2"]


def test_memory_is_that_of_the_context_at_its_highest() -> None:
    with watch_memory(CPU.device) as before:
        pass
    with watch_memory(CPU.device) as peak:
        held = torch.ones(64 * 2**20 // 4)
        del held
    if peak.kind != "anonymous (RssAnon)":
        pytest.skip("this system does not tell how much memory is anonymous")
    assert 0 < before.bytes < 2**40
    assert peak.bytes > 0


def test_a_guided_step_of_sd1_is_1607_gigaflop_and_a_halved_one_without_guidance() -> None:
    # two passes of 401.6 G multiply-adds
    options = GenerateOptions("", width=512, height=512).resolve(random_model("", SD1).defaults, 0)
    assert step_operations(SD1, options) == pytest.approx(2 * 2 * 401.6e9, rel=0.01)
    alone = GenerateOptions("", width=512, height=512, cfg_scale=1.0).resolve(
        random_model("", SD1).defaults, 0
    )
    assert step_operations(SD1, alone) == pytest.approx(step_operations(SD1, options) / 2)


def test_a_random_model_draws_a_picture_that_is_none_of_nan() -> None:
    files = random_model("tiny", TINY)
    options = ONE_STEP.resolve(files.defaults, 0)
    *_, last = (pipeline := Pipeline(files, CPU)).steps(options)
    (picture,) = pipeline.decode(last.latent)
    assert picture.size == (64, 64)
    assert np.asarray(picture).std() > 1.0


def test_random_weights_are_the_same_numbers_in_every_precision() -> None:
    files = random_model("tiny", TINY)
    exact = files.load("unet", "cpu", torch.float32).state_dict()
    half = files.load("unet", "cpu", torch.bfloat16).state_dict()
    assert exact.keys() == half.keys()
    assert all(torch.equal(exact[name].to(torch.bfloat16), half[name]) for name in exact)


def test_distance_in_levels_and_decibels() -> None:
    picture = gradient(64, 64)
    assert distance(picture, picture).psnr is None
    shifted = Image.fromarray((np.asarray(picture) // 2 + 10).astype(np.uint8))
    other = Image.fromarray((np.asarray(picture) // 2).astype(np.uint8))
    found = distance(shifted, other)
    assert (found.most, found.mean) == (10, 10.0)
    assert found.psnr == pytest.approx(20 * math.log10(255 / 10))
