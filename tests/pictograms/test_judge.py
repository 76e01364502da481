"""The judge: what it is asked of a scene, that it learns to answer, and the file it is kept in."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from sdscratch.checkpoints import places
from sdscratch.checkpoints.places import EMBEDDED, find_local
from sdscratch.errors import CheckpointError
from sdscratch.pictograms import judging
from sdscratch.pictograms.agreement import COMPOSITIONS
from sdscratch.pictograms.colours import RECOLOURED
from sdscratch.pictograms.judge import (
    MANY,
    QUESTIONS,
    SIDE,
    SLOTS,
    UNASKED,
    Classes,
    Judge,
    Verdict,
    answers,
    find_judge,
    load_judge,
    save_judge,
    usual_place,
)
from sdscratch.pictograms.judging import (
    JudgeLoss,
    alike,
    asked,
    measure,
    question_loss,
    settle_norms,
    softened,
)
from sdscratch.pictograms.mixtures import CPU as CPU_MIXTURE
from sdscratch.pictograms.mixtures import KINDS, Chooser, Mixture
from sdscratch.pictograms.pictograms import SIDE as SPRITE
from sdscratch.pictograms.pictograms import SpriteTable, load_sprites, table_of
from sdscratch.pictograms.scenes import Scene, Thing, combinations, held_out
from sdscratch.pictograms.vocabulary import concepts
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.engine.recipe import Budget
from sdscratch.training.engine.rng import generator
from support.judges import NAMES, Oracle, Squares, trained_judge
from support.sprites import disc_table, need_font

ROOT = Path(__file__).parents[2]
CLASSES = Classes((("dog",), ("cat", "cat face"), ("car",), ("apple",)))
CPU = DistributedContext(torch.device("cpu"))


def answer(question: str, scene: Scene) -> str | int:
    index = answers(scene, CLASSES)[question]
    assert isinstance(index, int)
    return index if index == UNASKED or question in SLOTS else QUESTIONS[question][index]


def test_a_scene_of_one_thing_is_labelled() -> None:
    scene = Scene((Thing("dog", colour="blue", worn=("crown",)),), "yellow")
    assert answer("first", scene) == 0
    assert answer("second", scene) == UNASKED
    assert [answer(name, scene) for name in QUESTIONS] == ["one", "yellow", "blue", "plain"]
    assert answers(scene, CLASSES)["worn"] == [int(name == "crown") for name in MANY["worn"]]


@pytest.mark.parametrize(
    ("relation", "places", "layout"),
    [
        ("left of", ((-0.2, 0.0), (0.2, 0.0)), "beside"),
        ("right of", ((0.2, 0.0), (-0.2, 0.0)), "beside"),
        ("next to", ((0.2, 0.0), (-0.2, 0.0)), "beside"),
        ("above", ((0.0, -0.2), (0.0, 0.2)), "stacked"),
        ("below", ((0.0, 0.2), (0.0, -0.2)), "stacked"),
    ],
)
def test_of_two_things_the_left_or_upper_one_is_the_first(
    relation: str, places: tuple[tuple[float, float], ...], layout: str
) -> None:
    scene = Scene((Thing("dog", at=places[0]), Thing("cat face", at=places[1])), relation=relation)
    dog_leads = sum(places[0]) < 0
    assert (answer("first", scene), answer("second", scene)) == ((0, 1) if dog_leads else (1, 0))
    assert answer("layout", scene) == layout
    assert answer("colour", scene) == UNASKED


def test_counts_sceneries_and_styles_are_labelled() -> None:
    apple = Thing("apple")
    assert [answer("layout", Scene((apple,) * n)) for n in (1, 2, 3, 4)] == list(QUESTIONS["layout"][:4])
    assert answer("ground", Scene((apple,), scenery="desert")) == "desert"
    assert answer("style", Scene((apple,), style="pixel art")) == "pixel art"


def test_a_colour_is_asked_for_where_one_could_say_it() -> None:
    assert answer("colour", Scene((Thing("car"),))) == "red"  # as cars are
    motley = next(name for name, own in RECOLOURED.items() if not own)
    index = answers(Scene((Thing(motley),)), Classes(((motley,),)))["colour"]
    assert index == QUESTIONS["colour"].index("its own")
    assert answer("colour", Scene((Thing("dog"),))) == UNASKED  # comes in one colour
    assert answer("colour", Scene((Thing("car"),), style="outline")) == UNASKED
    assert answer("colour", Scene((Thing("car"),) * 2)) == UNASKED


def test_what_no_one_could_tell_apart_is_one_class() -> None:
    y, x = np.mgrid[:SPRITE, :SPRITE] - SPRITE / 2

    def disc(radius: float) -> np.ndarray:
        inside = np.hypot(x, y) < radius
        return np.stack([255 * inside, 40 * inside, 0 * x, 255 * inside], axis=1).astype(np.uint8)

    names = ("circle", "ball", "dot", "marble")
    pixels = np.stack([disc(radius) for radius in (50, 50.5, 20, 51)])
    table: SpriteTable = table_of([(name, "") for name in names], pixels)
    classes = alike(table, names)
    assert classes.groups == (("circle", "ball", "marble"), ("dot",))
    assert classes.of["marble"] == classes.of["circle"] == 0


def test_the_loss_counts_every_question_and_reaches_every_weight() -> None:
    torch.manual_seed(0)
    judge = Judge(Classes(tuple((name,) for name in NAMES)))
    loss, figures = JudgeLoss(Squares(pairs=True), judge.classes, CPU)(judge, 0, range(8))
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in judge.parameters())
    assert 0 <= float(figures["first"]) <= 1


def test_a_question_that_makes_no_sense_costs_nothing() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    one = question_loss("colour", logits[:1], torch.tensor([0]))
    both = question_loss("colour", logits, torch.tensor([0, UNASKED]))
    assert_close(both, one / 2)
    assert float(question_loss("colour", logits, torch.tensor([UNASKED] * 2))) == 0


def test_softening_is_repeatable_slight_and_another_one_for_each_picture() -> None:
    shown = Squares().draw([Scene((Thing(NAMES[0]),))] * 3)

    def soft(seed: int) -> torch.Tensor:
        return softened(shown, torch.Generator().manual_seed(seed))

    assert_close(soft(1), soft(1), rtol=0, atol=0)
    assert not torch.equal(soft(1), soft(2))
    assert not torch.equal(soft(1)[0], soft(1)[1])
    assert soft(1).abs().max() <= 1
    assert 0 < float((soft(1) - shown).abs().mean()) < 0.15


def test_norms_settle_on_what_is_rendered_whatever_they_were_before() -> None:
    torch.manual_seed(0)
    judge = Judge(Classes(tuple((name,) for name in NAMES)))
    loss = JudgeLoss(Squares(), judge.classes, CPU)  # type: ignore[arg-type]
    before = judge.state_dict()["things.weight"].clone()
    settle_norms(judge, loss, step=9, batches=2, size=4)
    settled = {name: value.clone() for name, value in judge.state_dict().items()}
    first = judge.trunk[0]
    first.norm.running_mean.fill_(77.0)
    settle_norms(judge, loss, step=9, batches=2, size=4)
    assert_close(judge.state_dict(), settled, rtol=0, atol=0)
    assert_close(settled["things.weight"], before, rtol=0, atol=0)

    seen = [
        first.conv(softened(Squares().draw(scenes), generator("cpu", "soften", 1, step, 0)))
        for step in (9, 10)
        for scenes in [[Squares().scene(step, index) for index in range(4)]]
    ]
    mean = torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0)
    assert_close(settled["trunk.0.norm.running_mean"], mean.detach(), rtol=1e-4, atol=1e-5)


def test_it_learns_from_renders_and_sees_what_they_show() -> None:
    judge = trained_judge()
    scenes = [Squares().scene(1000, index) for index in range(40)]
    verdicts = judge.verdicts(Squares().draw(scenes))
    wanted = asked(scenes, judge.classes, torch.device("cpu"))
    right = [verdict.first[0] == int(index) for verdict, index in zip(verdicts, wanted["first"], strict=True)]
    assert sum(right) >= 38


def test_larger_pictures_are_seen_as_their_smaller_selves() -> None:
    judge = trained_judge()
    small = Squares().draw([Squares().scene(7, index) for index in range(6)])
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert large.shape[-1] == 2 * SIDE
    assert [v.first[0] for v in judge.verdicts(large)] == [v.first[0] for v in judge.verdicts(small)]


def test_a_judge_is_kept_with_its_vocabulary(tmp_path: Path) -> None:
    judge = trained_judge()
    path = tmp_path / "judge.safetensors"
    save_judge(path, judge)
    kept = load_judge(path, NAMES)
    assert kept.classes == judge.classes
    halves = {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in judge.state_dict().items()
    }
    assert_close(kept.state_dict(), halves, rtol=0, atol=0)
    assert not kept.training


def test_a_judge_that_is_missing_or_another_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    with pytest.raises(CheckpointError, match="make judge"):
        load_judge(path, NAMES)
    save_judge(path, trained_judge())
    with pytest.raises(CheckpointError, match="another vocabulary"):
        load_judge(path, (*NAMES, "dragon"))
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="is no judge"):
        load_judge(path, NAMES)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(CheckpointError, match="is no judge"):
        load_judge(path, NAMES)


def test_a_run_begins_with_the_weights_of_a_judge_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    path, table = tmp_path / "judge.safetensors", disc_table()
    names = [each.name for each in concepts()]
    save_judge(path, Judge(Classes(tuple((name,) for name in names))))
    monkeypatch.setattr(judging, "BATCH", 4)
    monkeypatch.setattr(judging, "settle_norms", lambda *_: None)
    # at a rate of nothing, what comes out is what went in
    after = judging.train_judge(table, Budget(steps=1), tmp_path / "run", CPU, rate=0.0, begin=path)
    before = load_judge(path, names)
    assert after.classes == before.classes
    assert_close(dict(after.named_parameters()), dict(before.named_parameters()), rtol=0, atol=0)
    moved = judging.train_judge(table, Budget(steps=2), tmp_path / "run", CPU, rate=1e-2, begin=path)
    assert not torch.equal(moved.things.weight, before.things.weight)


def test_the_users_own_judge_comes_before_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_embedded", lambda: tmp_path / "weights" / "default.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match=r"is not at .*cache.*make judge"):
        find_judge()
    shipped, own = tmp_path / "weights" / "judge.safetensors", usual_place()
    for path in (shipped, own):
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_judge() == path


def test_the_projects_judge_knows_the_embedded_vocabulary() -> None:
    shipped = find_local(EMBEDDED)
    assert shipped is not None
    judge = load_judge(shipped.with_name("judge.safetensors"), [each.name for each in concepts()])
    assert len(judge.classes) <= len(concepts())


def test_scenes_that_a_judge_cannot_know_are_not_labelled() -> None:
    with pytest.raises(KeyError):
        answers(replace(Scene((Thing("dog"),)), things=(Thing("dragon"),)), CLASSES)


class Numbering:
    """Draws scenes as numbers, for an oracle."""

    def __init__(self, mixture: Mixture) -> None:
        self.chooser = Chooser(mixture)
        self.shown: list[Scene] = []

    def draw(self, scenes: Sequence[Scene], device: torch.device) -> torch.Tensor:
        self.shown += scenes
        return torch.arange(len(self.shown) - len(scenes), len(self.shown), device=device)


def test_a_judge_is_measured_on_held_out_scenes_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = Numbering(CPU_MIXTURE)
    monkeypatch.setattr(judging, "judge_composer", lambda table: composer)
    oracle = Oracle(composer.shown)
    nothing: Any = None
    assert measure(oracle, nothing, count=70) == dict.fromkeys(KINDS, (1.0, 1.0))  # type: ignore[arg-type]
    kinds = Counter(scene.kind for scene in composer.shown)
    assert kinds == dict.fromkeys(KINDS, 70)
    for scene in composer.shown:
        assert scene.kind == "plain" or all(map(held_out, combinations(scene)))
    composer.shown.clear()
    monkeypatch.setattr(Oracle, "verdicts", lambda self, pictures: [BLIND] * len(pictures))
    assert all(attributes < 0.5 for _, attributes in measure(oracle, nothing, count=70).values())  # type: ignore[arg-type]


BLIND = Verdict((1,), (1,), "one", "orange", "its own", "plain", frozenset())


@pytest.mark.full
def test_the_judge_in_the_checkout_is_right_on_99_of_100_held_out_renders(tmp_path: Path) -> None:
    need_font()
    judge = load_judge(ROOT / "weights" / "judge.safetensors", [concept.name for concept in concepts()])
    shares = measure(judge, load_sprites(tmp_path))
    scored = ("plain", "ground", *COMPOSITIONS)
    things, attributes = (sum(shares[kind][which] for kind in scored) / len(scored) for which in (0, 1))
    assert things >= 0.99, shares
    assert attributes >= 0.985, shares


@pytest.mark.full
def test_make_judge_makes_one_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    need_font()
    output = tmp_path / "judge.safetensors"
    command = [
        sys.executable,
        "-m",
        "sdscratch.pictograms",
        "judge",
        "--folder",
        str(tmp_path),
        "--workers",
        "1",
    ]
    for steps in ("2", "3"):
        done = subprocess.run(
            [*command, "--output", str(output), "--steps", steps], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "% of things" in done.stdout
    assert load_judge(output, [concept.name for concept in concepts()]).classes.of["dog"] == 0
    assert [record["step"] for record in read_metrics(tmp_path / "judge" / "metrics.jsonl")] == [1, 2, 3]
