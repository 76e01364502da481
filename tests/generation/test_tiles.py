"""Tiles: exact where a decoder sees one position at a time, seamless, and close for the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.generation.tiles import in_tiles, starts

SHAPES = [(16, 16), (17, 40), (8, 33), (40, 16), (31, 31)]


def repeat(latent: Tensor) -> Tensor:
    """A decoder of which each position makes its own pixels."""
    return F.interpolate(latent[:, :3], scale_factor=8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_decoder_that_sees_one_position_gives_the_whole_picture(shape: tuple[int, int]) -> None:
    latent = torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(in_tiles(repeat, latent, 16), repeat(latent), rtol=0.0, atol=1e-6)


def test_tiles_that_differ_are_faded_into_each_other() -> None:
    count = iter(range(100))

    def decode(latent: Tensor) -> Tensor:
        return torch.full((1, 3, 8 * latent.shape[2], 8 * latent.shape[3]), float(next(count)))

    picture = in_tiles(decode, torch.zeros(1, 4, 16, 28), 16)  # two tiles that share 4 columns
    assert next(count) == 2
    row = picture[0, 0, 64]
    assert row[:96].eq(0.0).all()
    assert row[128:].eq(1.0).all()
    assert row[96:128].diff().gt(0.0).all()
    assert row.diff().max() < 0.05  # no seam


@pytest.mark.parametrize(("length", "side"), [(16, 16), (8, 16), (17, 16), (28, 16), (29, 16), (100, 20)])
def test_tiles_cover_everything_and_overlap(length: int, side: int) -> None:
    found = list(starts(length, side))
    assert found[0] == 0
    assert found[-1] + side == max(length, side)
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps <= side - side // 4).all()


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def test_only_larger_pictures_are_decoded_in_tiles(pipeline: Pipeline) -> None:
    options = {"width": 128, "height": 128, "steps": 1, "seed": 5}
    whole = np.asarray(pipeline.txt2img("a dog", **options))
    assert np.array_equal(whole, pipeline.txt2img("a dog", tile=128, **options))
    options["width"] = 192
    whole = np.asarray(pipeline.txt2img("a dog", **options), dtype=int)
    tiled = np.asarray(pipeline.txt2img("a dog", tile=128, **options), dtype=int)
    assert whole.shape == tiled.shape
    assert 0.0 < np.abs(whole - tiled).mean() < 12.0
