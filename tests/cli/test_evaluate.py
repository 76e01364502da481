"""`evaluate` as a script meets it: JSON, tables, exit codes, and what it says of a missing judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdscratch.checkpoints.places import cache_folder
from sdscratch.evaluation.evaluation import Evaluation
from sdscratch.generation.pipeline import Pipeline
from sdscratch.images import read_records
from sdscratch.pictograms.agreement import prompts
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.judge import Classes, Judge, save_judge
from sdscratch.pictograms.vocabulary import concepts
from support.checkpoints import TINY, ldm_tensors, self_contained, write_ldm
from support.cli import Result, sdscratch
from support.sprites import disc_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    defaults = json.dumps({"width": 64, "height": 64, "steps": 1, "cfg_scale": 1.0, "sampler": "euler"})
    metadata = self_contained(TINY) | {"sdscratch.defaults": defaults}
    return write_ldm(tmp_path_factory.mktemp("model") / "model.safetensors", ldm_tensors(), metadata)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sound pictures of different sizes, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, size in enumerate([(80, 64), (64, 100), (70, 70)]):
        x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
        picture = np.stack([x, y, np.full_like(x, 80 * index)], axis=-1).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"the dog {index}")
    sound = (folder / "0.png").read_bytes()
    (folder / "broken.png").write_bytes(sound[: len(sound) // 2])
    (folder / "broken.txt").write_text("a cat")
    return folder


def run(*arguments: object) -> Result:
    return sdscratch("evaluate", *arguments, "--device", "cpu", "--dtype", "float32")


def test_a_folder_is_measured_and_told_as_json(model: Path, pictures: Path) -> None:
    result = run(model, pictures, "--json", "--batch-size", 2)
    assert result.code == 0, result.stderr
    (line,) = result.lines
    facts = json.loads(line)
    assert (facts["model"], facts["data"]) == (str(model), str(pictures))
    assert (facts["pictures"], facts["width"], facts["height"]) == (3, 64, 64)
    assert [each["path"] for each in facts["skipped"]] == ["broken.png"]
    assert "broken.png" in result.stderr
    assert 0 < facts["autoencoder"]["psnr"] < 60
    assert -1 <= facts["autoencoder"]["ssim"] <= 1
    parts = facts["denoising"]["by_timestep"]
    assert facts["denoising"]["prediction"] == "epsilon"
    assert [(part["first"], part["last"]) for part in parts] == [(i, i + 99) for i in range(0, 1000, 100)]
    assert facts["denoising"]["loss"] == pytest.approx(sum(p["weight"] * p["loss"] for p in parts))
    assert "agreement" not in facts
    assert len(facts["model_hash"]) == 10 or len(facts["model_hash"]) == 64
    again = json.loads(run(model, pictures, "--json", "--batch-size", 2, "--quiet").stdout)
    assert again == facts
    other = json.loads(run(model, pictures, "--json", "--seed", 1, "--limit", 2).stdout)
    assert other["pictures"] == 2
    assert other["denoising"]["loss"] != facts["denoising"]["loss"]


def test_people_get_tables_of_at_most_80_columns(model: Path, pictures: Path) -> None:
    result = run(model, pictures)
    assert result.code == 0
    text = result.stdout.decode()
    words = " ".join(text.split())  # where a line breaks depends on how long the paths are
    for part in (
        "3 pictures of 64×64, 1 skipped",
        "PSNR",
        "SSIM",
        "timesteps",
        "900–999",
        "the noise (epsilon)",
    ):
        assert part in words
    assert all(len(line) <= 80 for line in result.lines if str(model) not in line)
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing.safetensors", "PICTURES"), 3, "there is no model nothing.safetensors"),
        (("MODEL", "nowhere"), 4, "nowhere is not there"),
        (("MODEL", "MODEL"), 4, "is a file, not a folder"),
        (("MODEL", "EMPTY"), 4, "holds no pictures"),
        (("MODEL", "BROKEN"), 4, "broken.png"),
        (("MODEL", "PICTURES", "--limit", "0"), 2, "limit"),
        (("MODEL", "PICTURES", "--device", "tpu"), 2, "no device is called 'tpu'"),
        (("MODEL", "pictograms", "--judge", "nowhere"), 3, "make judge"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, model: Path, pictures: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("broken.png", "broken.txt"):
        (broken / name).write_bytes((pictures / name).read_bytes())
    (tmp_path / "empty").mkdir()
    names = {"MODEL": model, "PICTURES": pictures, "EMPTY": tmp_path / "empty", "BROKEN": broken}
    result = sdscratch("evaluate", *(names.get(word, word) for word in arguments))
    assert result.code == code, result.stderr
    assert said in result.stderr
    assert result.stdout == b""


def test_pictograms_are_judged(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [concept.name for concept in concepts()]
    judge = tmp_path / "judge.safetensors"
    save_judge(judge, Judge(Classes(tuple((name,) for name in names))))
    monkeypatch.setattr(Evaluation, "renders", lambda self, count: squares(count))
    monkeypatch.setattr(Evaluation, "composer", composer())
    result = run(model, "pictograms", "--prompts", 10, "--limit", 2, "--judge", judge, "--json")
    assert result.code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["pictures"] == 2
    assert {row: values["prompts"] for row, values in facts["agreement"].items()} == {
        "known": 3, "vocabulary": 3, "background": 1, "compositions": 3
    }  # fmt: skip
    assert sum(kind["prompts"] for kind in facts["agreement"]["compositions"]["kinds"].values()) == 3
    assert [told["prompt"] for told in facts["judged"]] == [prompt.text for prompt in prompts(10)]
    assert "judging" in result.stderr
    looks = facts["looks"]
    assert looks["pictures"] == 10
    assert looks["drawn"].keys() == looks["renders"].keys() == {"flat", "flat_inside", "gradient"}
    assert looks["renders"]["flat"] > 0.8  # discs on plain grounds
    assert looks["drawn"]["flat"] < looks["renders"]["flat"]  # of a model with random weights
    assert looks["frechet_distance"] > 0

    shown = run(model, "pictograms", "--prompts", 10, "--limit", 2, "--judge", judge)
    text = shown.stdout.decode()
    for part in ("the 300 best known", "the whole vocabulary", "backgrounds", "held-out compositions", "%"):
        assert part in text
    for part in ("10 pictures", "drawn", "renders", "flat neighbourhoods", "gradient", "Fréchet distance"):
        assert part in text
    assert all(len(line) <= 80 for line in shown.lines if str(model) not in line)


def test_what_was_drawn_is_kept_and_not_drawn_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = tmp_path / "judge.safetensors"
    save_judge(judge, Judge(Classes(tuple((concept.name,) for concept in concepts()))))
    monkeypatch.setattr(Evaluation, "renders", lambda self, count: squares(count))
    monkeypatch.setattr(Evaluation, "composer", composer())
    asked = (model, "pictograms", "--limit", 1, "--judge", judge, "--json")
    plain = run(*asked, "--prompts", 10)
    kept = (*asked, "--pictures", tmp_path / "drawn")
    assert run(*kept, "--prompts", 10).stdout == plain.stdout
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == [f"{number:04d}.png" for number in range(1, 11)]
    assert [read_records(path).record.options.prompt for path in drawn] == [  # type: ignore[union-attr]
        prompt.text for prompt in prompts(10)
    ]

    drawn[3].unlink()  # as if it had been stopped there
    monkeypatch.setattr(Pipeline, "txt2img", counted := Counted(Pipeline.txt2img))
    assert run(*kept, "--prompts", 10).stdout == plain.stdout
    assert counted.calls == 1
    assert drawn[3].is_file()

    refused = run(*kept, "--prompts", 10, "--seed", 5)
    assert refused.code == 2
    assert "0001.png is no picture of this model and" in refused.stderr
    assert refused.stdout == b""


class Counted:
    """A method that counts how often it is called."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method, self.calls = method, 0

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return self.method(instance, *arguments, **options)

        return call


def test_without_prompts_no_judge_is_needed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluation, "renders", lambda self, count: squares(count))
    assert not (cache_folder() / "judge.safetensors").exists()
    result = run(model, "pictograms", "--prompts", 0, "--limit", 1, "--json")
    assert result.code == 0, result.stderr
    assert "agreement" not in json.loads(result.stdout)


def composer() -> Composer:
    """Draws renders without a font."""
    return Composer(disc_table(), 64)


def squares(count: int):  # type: ignore[no-untyped-def]
    from sdscratch.pictograms.scenes import Scene, Thing
    from sdscratch.training.dataset.source import Batch
    from support.judges import NAMES, Squares

    yield Batch(Squares().draw([Scene((Thing(NAMES[0]),))] * count), ("a dog",) * count)
