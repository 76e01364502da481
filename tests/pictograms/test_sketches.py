"""Sketches of scenes show what there is where it is, differ each time, and survive that a run is stopped."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sdscratch.addons.control import open_controls
from sdscratch.addons.control_requests import ControlRequest
from sdscratch.checkpoints.model import open_model
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.mixtures import FULL
from sdscratch.pictograms.scenes import Scene, Thing
from sdscratch.pictograms.scribble import train_scribble
from sdscratch.pictograms.sketches import SketchedLatents, contours, emptied, lines, sketch
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.tasks.control import save_control
from support.controlnets import hint
from support.sprites import disc_table
from support.training import CPU


def scenes(size: int = 64) -> Composer:
    return Composer(disc_table(), size, FULL, seed=3)


def encode(pictures: Tensor) -> Tensor:
    return pictures[:, :2, ::8, ::8]


def test_contours_surround_the_thing_whatever_stands_behind_it() -> None:
    composer = scenes()
    name = next(iter(composer.table.rows))[0]
    for background in ("white", "blue"):
        scene = Scene((Thing(name, at=(0.2, -0.1), scale=0.4),), background=background)
        picture, ground = composer.draw([scene]), composer.draw([emptied(scene)])
        contour = contours(picture, ground)[0, 0]
        rows, columns = (torch.nonzero(contour.sum(axis)).flatten() for axis in (1, 0))
        assert contour.sum() > 40
        assert 0.7 * 64 > float(rows.float().mean()) > 0.3 * 64
        assert int(columns.min()) >= 0.5 * 64  # nothing of the left half
        assert lines(picture).amax() == 1.0
        assert contours(ground, ground).sum() == 0


def test_a_sketch_is_light_on_dark_or_dark_on_light_and_never_the_same() -> None:
    scene = scenes().scene(0, 0)
    picture, ground = scenes().draw([scene]), scenes().draw([emptied(scene)])
    drawn = [
        sketch(contours(picture, ground)[0], lines(picture)[0], torch.Generator().manual_seed(seed))
        for seed in range(12)
    ]
    assert all(each.min() >= 0.0 and each.max() <= 1.0 for each in drawn)
    light = [float(each.median()) > 0.5 for each in drawn]
    assert 0 < sum(light) < 12
    assert len({each.sum().item() for each in drawn}) == 12


def test_a_step_has_the_same_sketches_whoever_asks_and_when() -> None:
    source = SketchedLatents(scenes(), encode, torch.device("cpu"), 5)
    first = source(3, range(4))
    assert first.hints is not None
    assert first.hints.shape == (4, 1, 64, 64)
    again = SketchedLatents(scenes(), encode, torch.device("cpu"), 5)
    again(200, range(4))  # another turn
    later = again(3, range(2, 4))
    assert torch.equal(later.values, first.values[2:])
    assert later.hints is not None
    assert torch.equal(later.hints, first.hints[2:])
    assert later.captions == first.captions[2:]


def test_the_adapter_of_the_built_in_model_is_trained_further_and_opens(tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "weights" / "default.safetensors"
    composer = scenes(128)

    def run(steps: int) -> int:
        recipe = Recipe(Budget(steps=steps), 1e-3, batch=2, warm_up=1, ema=0.5, seed=6)
        adapter, done = train_scribble(model, composer, recipe, tmp_path / "run", CPU)
        save_control(tmp_path / "it.safetensors", adapter, {"steps": done})
        return done

    assert (run(1), run(2)) == (1, 2)
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert (tmp_path / "it.safetensors").stat().st_size <= 6_000_000
    request = ControlRequest(str(tmp_path / "it.safetensors"), hint())
    (opened,) = open_controls([request], open_model("default"))
    assert opened.file.title == "T2I-Adapter"
