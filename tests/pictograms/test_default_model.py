"""The built-in model: it is there, wherever sdscratch is run from, and draws without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import sdscratch
from sdscratch.checkpoints.model import open_model
from sdscratch.images.tensors import to_tensor
from sdscratch.options import GenerateOptions
from sdscratch.pictograms.agreement import agreement, prompts
from sdscratch.pictograms.judge import load_judge
from sdscratch.pictograms.vocabulary import concepts
from support.absent import absent

ROOT = Path(__file__).parents[2]
MEGABYTE = 10**6


def test_the_file_is_small_float16_and_carries_all_it_needs() -> None:
    model = open_model("default")
    assert model.path.stat().st_size <= 40 * MEGABYTE
    assert model.layout == "ldm"
    assert {model.info(weight).dtype for weight in model.stored} == {"F16"}
    assert model.own_tokenizer is not None
    assert model.own_tokenizer.size == model.config.text.vocabulary
    assert model.dropped == ()


def test_its_model_card_names_data_licence_recipe_and_limits() -> None:
    card = (ROOT / "weights" / "README.md").read_text()
    for word in ("Noto Color Emoji", "SIL Open Font License", "## Recipe", "## Limits"):
        assert word in card


def test_it_draws_what_was_asked_for_on_the_background_that_was_asked_for() -> None:
    pipeline = sdscratch.load("default", device="cpu")
    backgrounds = {"a dog": (255, 255, 255), "a dog on a blue background": (64, 115, 230)}
    for prompt, background in backgrounds.items():
        picture = pipeline.txt2img(prompt, seed=0)
        ends = (1, picture.width - 2)
        corners = [picture.getpixel((x, y)) for x in ends for y in ends]
        for corner in corners:
            assert isinstance(corner, tuple)
            assert max(abs(a - b) for a, b in zip(corner, background, strict=True)) < 40, (prompt, corners)


def test_the_judge_recognises_most_of_the_best_known_things() -> None:
    pipeline = sdscratch.load("default", device="cpu")
    judge = load_judge(ROOT / "weights" / "judge.safetensors", [each.name for each in concepts()])
    asked = [prompt for prompt in prompts(1000, seed=1) if prompt.row == "known"][:16]

    def draw(text: str, seed: int) -> Tensor:
        return to_tensor(pipeline.txt2img(text, seed=seed))

    findings = list(agreement(draw, judge, asked))
    assert sum(finding.top1 for finding in findings) >= 13, [f.prompt.text for f in findings if not f.top1]


def test_its_tiny_decoder_is_small_and_shows_nearly_what_is_decoded() -> None:
    pipeline = sdscratch.load("default", device="cpu", dtype="float32")
    assert pipeline.taesd is not None
    assert pipeline.taesd.path.stat().st_size <= 0.2 * MEGABYTE
    for prompt in ("a red apple", "an owl on a blue background"):
        *_, last = pipeline.steps(pipeline.resolve(GenerateOptions(prompt, seed=0)))
        shown, exact = (
            np.asarray(draw(last.latent)[0], dtype=float) for draw in (pipeline.preview, pipeline.decode)
        )
        assert 10 * np.log10(255**2 / np.mean((shown - exact) ** 2)) > 22.0  # the linear sketch: 20


@pytest.mark.full
def test_an_installed_wheel_draws_from_any_folder(tmp_path: Path) -> None:
    made = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT))
    if made.returncode:
        absent(f"a package registry to build a wheel with ({made.stderr[-200:]})")
    (wheel,) = tmp_path.glob("sdscratch-*.whl")
    site = tmp_path / "site"
    assert not run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)
    ).returncode
    assert (site / "sdscratch" / "weights" / "default-taesd.safetensors").is_file()
    (tmp_path / "elsewhere").mkdir()
    drawn = run(
        *(sys.executable, "-P", "-m", "sdscratch", "txt2img", "a dog wearing sunglasses", "--json"),
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
    )
    assert drawn.returncode == 0, drawn.stderr
    (picture,) = (tmp_path / "elsewhere" / "outputs").iterdir()
    with Image.open(picture) as opened:
        assert opened.size == (128, 128)


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]
