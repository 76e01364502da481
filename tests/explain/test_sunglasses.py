"""Where a word looks is where its thing is: the built-in model's sunglasses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from sdscratch import Pipeline, load
from sdscratch.explain.capture import Run, watched
from sdscratch.generation.requests import Request
from sdscratch.options import GenerateOptions

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The built-in model."""
    return load("default", device="cpu", dtype="float32")


@pytest.mark.parametrize("seed", range(4))
def test_the_map_of_sunglasses_lies_over_the_sunglasses(seed: int, pipeline: Pipeline) -> None:
    """More of its mass is inside their box than an even spread would give: at least half as much again."""
    options = pipeline.resolve(GenerateOptions("a dog wearing sunglasses", seed=seed, steps=8))
    *_, run = watched(pipeline, Request(options))
    assert isinstance(run, Run)
    assert run.picture is not None
    finest = next(iter(run.total.values()))[run.words.index("sunglasses")]
    over = torch.nn.functional.interpolate(finest[None, None], size=(128, 128), mode="nearest")[0, 0]
    top, bottom, left, right = box_of_glasses(np.asarray(run.picture.image))
    even = (bottom - top) * (right - left) / 128**2
    assert 0.03 < even < 0.3
    assert over[top:bottom, left:right].sum() / over.sum() > 1.5 * even


def box_of_glasses(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Around the two largest dark patches, or the one, where both glasses are in it."""
    patches, count = ndimage.label(picture.max(-1) < 70)
    sizes = [(patches == number).sum() for number in range(1, count + 1)]
    boxes = ndimage.find_objects(patches)
    order = sorted(range(count), key=lambda index: -sizes[index])
    glasses = [boxes[index] for index in order[:2] if sizes[index] > 0.5 * sizes[order[0]]]
    rows, columns = zip(*glasses, strict=True)
    return (
        min(each.start for each in rows),
        max(each.stop for each in rows),
        min(each.start for each in columns),
        max(each.stop for each in columns),
    )
