"""Tiles: the same picture as the whole, chosen by memory, said in the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdscratch.device import Placement
from sdscratch.generation import tiles
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.generation.tiles import tile_by_memory
from sdscratch.models.config import SD1
from sdscratch.options import GenerateOptions

CPU = Placement(torch.device("cpu"), torch.float32, "")


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.mark.parametrize("size", [(192, 128), (136, 264)], ids=str)
def test_a_picture_in_tiles_is_the_picture(pipeline: Pipeline, size: tuple[int, int]) -> None:
    options = {"width": size[0], "height": size[1], "steps": 1, "seed": 5}
    whole = pipeline.txt2img("a dog", tile=0, **options)
    assert np.asarray(whole).std() > 5.0
    assert difference(whole, pipeline.txt2img("a dog", tile=128, **options)) <= 1
    changed = [
        pipeline.img2img(whole, "a cat", tile=tile, strength=0.5, steps=2, seed=1, sampler="ddim")
        for tile in (0, 128)
    ]
    assert difference(*changed) <= 1


def test_only_larger_pictures_are_drawn_in_tiles(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tiles, "decode_in_bands", refuse)
    pipeline.txt2img("a dog", width=128, height=128, steps=1, seed=5, tile=128)
    with pytest.raises(AssertionError):
        pipeline.txt2img("a dog", width=136, height=128, steps=1, seed=5, tile=128)


def test_memory_decides_by_the_machine_not_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "memory_of", lambda device: 16 * 10**9)
    config = SD1.autoencoder
    assert tile_by_memory((1024, 1024), config, CPU) == 0
    assert tile_by_memory((2048, 2048), config, CPU) == 512
    assert tile_by_memory((512, 512), config, CPU, low_memory=True) == 0
    assert tile_by_memory((520, 512), config, CPU, low_memory=True) == 512
    monkeypatch.setattr(tiles, "memory_of", lambda device: 10**12)
    assert tile_by_memory((2048, 2048), config, CPU) == 0


def test_what_was_decided_is_resolved_and_what_is_asked_wins(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "memory_of", lambda device: 1)
    assert pipeline.resolve(GenerateOptions("a dog")).tile == 512
    assert pipeline.resolve(GenerateOptions("a dog", tile=0)).tile == 0
    assert pipeline.resolve(GenerateOptions("a dog", tile=256)).tile == 256
    monkeypatch.undo()
    assert pipeline.resolve(GenerateOptions("a dog")).tile == 0
