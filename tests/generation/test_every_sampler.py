"""Every sampler of the catalogue draws, counts its steps, and makes the same picture in a batch as alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.options import GenerateOptions

# Chooses its own steps: hundreds over all noise levels of random weights, some over these.
LEVELS = {"dpm_adaptive": {"sigmas": "1.5,1,0.7,0"}}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_batch_is_its_pictures_drawn_alone(sampler: str, pipeline: Pipeline) -> None:
    levels = LEVELS.get(sampler, {"steps": 3})
    asked = {"width": 64, "height": 64, "sampler": sampler, "cfg_scale": 2.0, **levels}
    together = pipeline.txt2img("a dog", batch_count=2, batch_size=2, seed=5, **asked)
    assert isinstance(together, list)
    for index, picture in enumerate(together):
        alone = pipeline.txt2img("a dog", seed=5 + index, **asked)
        assert isinstance(alone, Image.Image)
        assert np.array_equal(np.asarray(picture), np.asarray(alone))


@pytest.mark.parametrize("sampler", ["euler", "dpm_fast", "dpm_adaptive", "restart", "plms"])
@pytest.mark.parametrize("count", [1, 2])
def test_steps_are_counted_from_0_to_all_of_them(sampler: str, count: int, pipeline: Pipeline) -> None:
    levels = LEVELS.get(sampler, {"steps": 6})
    asked = GenerateOptions("a dog", width=64, height=64, seed=5, sampler=sampler, **levels)
    progress = list(pipeline.steps(pipeline.resolve(asked), count=count))
    assert [each.done for each in progress] == list(range(len(progress)))
    assert [each.done == each.total for each in progress[1:]] == [False] * (len(progress) - 2) + [True]
    assert len(progress[-1].latent) == count
