"""`explain`: the picture of every day, and a page whose numbers are the run's own tensors."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdscratch import Pipeline, load
from sdscratch.explain.capture import Run, watched
from sdscratch.explain.glossary import words
from sdscratch.explain.page import Told, page
from sdscratch.explain.texts import MOST_WORDS, STAGES
from sdscratch.generation.requests import Request
from sdscratch.options import GenerateOptions
from support.cli import Result, sdscratch
from support.explained import ExplainedPage, levels_of
from support.loras import changes, targets, write_lora
from support.pictures import gradient

PLAIN = ("--size", "64x64", "--seed", 5, "--device", "cpu", "--dtype", "float32")
SMALL = (*PLAIN, "--steps", 2)
GUIDED = ("a (dog:1.2) the cat", *PLAIN, "--steps", 4, "--cfg-scale", 2.5, "--sampler", "dpm++2m")


@dataclass(frozen=True)
class Explained:
    """What a command left."""

    result: Result
    page: ExplainedPage
    arrays: Any  # run.npz
    about: dict[str, Any]  # run.json

    @classmethod
    def by(cls, folder: Path, prompt: str, *arguments: object) -> Explained:
        """Run the command."""
        page, tensors = folder / "page.html", folder / "tensors"
        result = sdscratch("explain", prompt, *arguments, "-o", page, "--save", tensors)
        assert result.code == 0, result.stderr
        return cls(
            result,
            ExplainedPage.read(page),
            np.load(tensors / "run.npz"),
            json.loads((tensors / "run.json").read_text()),
        )


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Explained:
    """A tiny random SD 1.x's, guided, of a prompt with a weight."""
    prompt, *others = GUIDED
    return Explained.by(tmp_path_factory.mktemp("guided"), str(prompt), "-m", tiny_model, *others)


@pytest.fixture(scope="module")
def from_picture(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Explained:
    """Its, from a picture, with a LoRA, unguided, in fresh noise."""
    folder = tmp_path_factory.mktemp("tiny")
    gradient(64, 64).save(folder / "init.png")
    lora = write_lora(folder / "ink.safetensors", changes(targets()))
    return Explained.by(
        folder, "a dog", "-m", tiny_model, "--init", folder / "init.png", "--strength", 0.7,
        "--lora", f"{lora}:0.5", "--cfg-scale", 1, "--sampler", "euler_a", "--steps", 3, *PLAIN,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    return tmp_path


@pytest.fixture
def explain(tiny_model: Path) -> Callable[..., Result]:
    """Explain "a dog" by a tiny model."""
    return lambda *arguments: sdscratch("explain", "a dog", "-m", tiny_model, *SMALL, *arguments)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


# The picture


def test_the_picture_is_the_file_that_txt2img_writes(guided: Explained, tiny_model: Path) -> None:
    drawn = sdscratch("txt2img", *GUIDED, "-m", tiny_model, "-o", "-")
    assert drawn.code == 0, drawn.stderr
    (picture,) = guided.page.pictures()
    assert (pixels(picture) == pixels(Image.open(io.BytesIO(drawn.stdout)))).all()
    assert (guided.arrays["picture"] == pixels(picture)).all()
    assert guided.page.html.count(base64.b64encode(drawn.stdout)) >= 1


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_the_command_on_the_page_draws_the_picture_again(made: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(made).page
    (command,) = re.findall(r'<code id="command-0">(.*?)</code>', page.html.decode(), re.DOTALL)
    typed = shlex.split(unescape(command))
    assert typed[0] == "sdscratch"
    again = sdscratch(*typed[1:], "-o", "again.png")
    assert again.code == 0, again.stderr
    assert (pixels(Image.open("again.png")) == pixels(page.pictures()[0])).all()


def test_stdout_is_the_path_as_it_was_asked_for(guided: Explained) -> None:
    assert guided.result.lines[0].endswith("/page.html")
    assert "seed 5" in guided.result.stderr


# The page


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_the_page_is_whole_and_asks_nobody_for_anything(made: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(made).page
    assert len(page.html) < 6e6
    assert page.html.startswith(b"<!DOCTYPE html>") or b"<!DOCTYPE html>" in page.html[:40]
    for tag, attributes in page.outline.elements:
        for name in ("src", "srcset", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert not (tag == "link" and not str(attributes.get("href")).startswith("data:"))
        assert tag not in ("iframe", "object", "embed")
    style = page.html.decode().partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\((?!\"?(data:|#))", style)
    assert "@import" not in style


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_every_stage_is_there_with_its_equation_paper_and_code(
    made: str, request: pytest.FixtureRequest
) -> None:
    html = request.getfixturevalue(made).page.html.decode()
    sections = dict(re.findall(r'<section class="stage" id="stage-(\w+)"(.*?)</section>', html, re.DOTALL))
    assert tuple(sections) == STAGES
    for name, section in sections.items():
        (paragraph,) = re.findall(r'<p class="paragraph">(.*?)</p>', section, re.DOTALL)
        assert words(re.sub(r"<[^>]+>", "", paragraph)) <= MOST_WORDS
        files = re.findall(r'<a href="file://([^"#]+)#L(\d+)">([^<]+)</a>', section)
        assert files, name
        for path, line, shown in files:
            assert shown == f"{shown.partition(':')[0]}:{line}"
            assert re.match(r"\s*(async )?(def|class|@)", Path(path).read_text().splitlines()[int(line) - 1])
        if name not in ("tokens", "picture"):
            assert "<math" in section, name
        if name != "picture":
            assert "https://arxiv.org/abs/" in section, name


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_every_picture_has_an_alternative_and_ids_are_of_one_element(
    made: str, request: pytest.FixtureRequest
) -> None:
    elements = request.getfixturevalue(made).page.outline.elements
    for tag, attributes in elements:
        if tag == "img":
            assert "alt" in attributes, attributes
        if tag == "svg":
            assert "aria-label" in attributes or attributes.get("aria-hidden") == "true"
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = [str(a["href"])[1:] for t, a in elements if t == "a" and str(a.get("href")).startswith("#")]
    assert set(linked) <= set(ids)
    headings = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_a_prompt_cannot_break_the_page(explain: Callable[..., Result], tiny_model: Path) -> None:
    prompt = '</script><script>alert("x")</script> & <b>"dog"'
    result = sdscratch("explain", prompt, "-m", tiny_model, *SMALL, "-o", "-")
    assert result.code == 0, result.stderr
    page = ExplainedPage(result.stdout)
    assert sum(tag == "script" for tag, _ in page.outline.elements) == 2
    assert f"“{prompt}”" in page.text


# Numbers


def test_tokens_are_the_ones_that_were_read(guided: Explained) -> None:
    html = guided.page.html.decode()
    section = html.partition('id="stage-tokens"')[2].partition("</section>")[0]
    shown = re.findall(
        r'<li class="token ([\w ]+)"[^>]*><b>([^<]+)</b><span>([^<]+)</span>(?:<em[^>]*>× ([\d.]+))?', section
    )
    ids, weights = guided.arrays["ids"][0], guided.arrays["weights"][0]
    prompt = shown[: [kind for kind, *_ in shown].index("padding") + 1]
    for (kind, _, id, weight), known, factor in zip(prompt[:-1], ids, weights, strict=False):
        assert int(id) == known, kind
        assert float(weight or 1.0) == pytest.approx(factor)
    assert prompt[-1][2] == f"{len(ids) - len(prompt) + 1} × {ids[-1]}"
    assert [piece for _, piece, _, _ in prompt] == ["start", "a", "dog", "the", "cat", "end", "padding"]
    assert prompt[2][3] == "1.2"


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_pictures_of_numbers_are_the_tensors(made: str, request: pytest.FixtureRequest) -> None:
    explained = request.getfixturevalue(made)
    arrays, page = explained.arrays, explained.page
    sigmas = arrays["sigmas"][arrays["steps"]]
    assert (arrays["steps"] == np.arange(len(arrays["sigmas"]))).all()
    for frame, (x, noise, sigma) in enumerate(zip(arrays["x"], arrays["noise"], sigmas, strict=True)):
        same_levels(page.images("x")[frame], x / np.sqrt(1 + sigma**2), 3.0)
        same_levels(page.images("noise")[frame], noise, 3.0)
    for name in [name for name in arrays.files if re.fullmatch(r"block_[\w.]+\d", name)][:4]:
        maps = arrays[name]
        told = page.data[0]["texts"][f"rms-{name.removeprefix('block_')}"]["all"]
        for text, value in zip(told, arrays[f"{name}_rms"], strict=True):
            assert float(text) == pytest.approx(value, rel=6e-3)
        assert levels_of(page.data[0]["images"][f"block-{name.removeprefix('block_')}"]["all"][0]).shape == (
            maps.shape[2],
            maps.shape[1] * (maps.shape[3] + 1) - 1,
        )


def same_levels(sheet: np.ndarray, channels: np.ndarray, most: float) -> None:
    """Whether the tiles of a sheet are these channels, to half a grey level."""
    _, h, w = channels.shape
    columns = (sheet.shape[1] + 1) // (w + 1)
    for index, channel in enumerate(channels):
        top, left = (index // columns) * (h + 1), (index % columns) * (w + 1)
        tile = sheet[top : top + h, left : left + w].astype(float)
        clipped = np.clip(channel, -most, most)
        assert np.abs((tile - 128) * most / 127 - clipped).max() <= most / 127 / 2 + 1e-5


@pytest.mark.parametrize("made", ["guided", "from_picture"])
def test_numbers_of_each_step_are_the_tensors(made: str, request: pytest.FixtureRequest) -> None:
    explained = request.getfixturevalue(made)
    arrays, data = explained.arrays, explained.page.data[0]

    def told(name: str) -> list[float]:
        return [float(text.replace("−", "-")) for text in data["texts"][name]["all"]]

    def rms(values: np.ndarray) -> np.ndarray:
        return np.sqrt((values.astype(float) ** 2).mean((1, 2, 3)))

    assert told("sigma") == pytest.approx(arrays["sigmas"], rel=6e-4)
    assert told("timestep") == pytest.approx(arrays["timesteps"], rel=6e-5, abs=1e-3)
    assert told("rms-x") == pytest.approx(rms(arrays["x"]), rel=6e-4)
    assert told("rms-noise") == pytest.approx(rms(arrays["noise"]), rel=6e-4)
    assert told("rms-x0") == pytest.approx(rms(arrays["denoised"]), rel=6e-4)
    if "denoised_without_prompt" in arrays:
        pull = arrays["denoised"] - arrays["denoised_with_prompt"]
        assert told("rms-pull") == pytest.approx(rms(pull), rel=6e-3)
    x, after = arrays["x"].astype(float), arrays["x_after"].astype(float)
    assert np.abs(x[1:] - after[:-1]).max() == 0.0


def test_guidance_is_what_the_equation_says(guided: Explained) -> None:
    arrays, scale = guided.arrays, 2.5
    without, with_prompt = arrays["denoised_without_prompt"], arrays["denoised_with_prompt"]
    expected = without + scale * (with_prompt - without)
    assert np.abs(arrays["denoised"] - expected).max() < 2e-4


def test_the_sum_on_the_page_is_the_step_that_was_made(guided: Explained) -> None:
    arrays, data = guided.arrays, guided.page.data[0]
    estimates = arrays["denoised"].astype(float)
    for step, text in enumerate(data["texts"]["update"]["all"]):
        assert text.startswith("x′ = ")
        total = np.zeros_like(estimates[0])
        for sign, value, name in re.findall(r"([−+]?) ?([\d.]+) (x|D₋₁|D)", text.removeprefix("x′ = ")):
            tensor = {"x": arrays["x"][step], "D": estimates[step], "D₋₁": estimates[step - 1]}[name]
            total += (-1 if sign == "−" else 1) * float(value) * tensor.astype(float)
        spread = np.abs(arrays["x_after"][step]).max()
        assert np.abs(total - arrays["x_after"][step]).max() < 2e-3 * spread, text


def test_attention_adds_up_to_one_and_is_what_the_page_shows(guided: Explained) -> None:
    arrays, told = guided.arrays, guided.page.data[0]["attention"]
    names = [name for name in arrays.files if re.fullmatch(r"attention_\d+x\d+", name)]
    assert names == ["attention_8x8", "attention_4x4", "attention_2x2", "attention_1x1"]
    assert [word["key"] for word in told["words"]] == guided.about["words"]
    for name in names:
        maps, mean = arrays[name], arrays[f"{name}_mean"]
        assert np.abs(maps.sum(1) - 1).max() < 1e-5
        assert np.abs(maps.mean(0) - mean).max() < 1e-6
        size = name.removeprefix("attention_").replace("x", "×")
        peaks = np.maximum(maps.max((0, 2, 3)), mean.max((1, 2)))
        shown = np.stack([levels_of(each) for each in told["maps"][size]["mean"]]).astype(float)
        assert np.abs(shown * peaks[:, None, None] / 255 - mean).max() <= peaks.max() / 255 / 2 + 1e-6
        shown = np.stack([levels_of(each) for each in told["maps"][size]["steps"][2]]).astype(float)
        assert np.abs(shown * peaks[:, None, None] / 255 - maps[2]).max() <= peaks.max() / 255 / 2 + 1e-6


def test_the_context_is_the_encoders_and_attention_of_its_heads_adds_up(guided: Explained) -> None:
    arrays = guided.arrays
    assert arrays["context"].shape == (77, 32)
    attention = arrays["text_attention"].astype(float)
    assert attention.shape == (2, 4, 77, 77)
    assert np.abs(attention.sum(-1) - 1).max() < 5e-3  # float16
    assert np.abs(np.triu(attention, 1)).max() == 0.0
    assert len(guided.page.data[0]["heads"]) == 2


def test_the_arrays_are_described(guided: Explained, from_picture: Explained) -> None:
    for each in (guided, from_picture):
        assert set(each.about["arrays"]) == set(each.arrays.files)
        for name, about in each.about["arrays"].items():
            assert about["shape"] == list(each.arrays[name].shape), name
            assert about["meaning"], name


def test_from_a_picture_the_encoder_and_strength_are_shown(from_picture: Explained) -> None:
    assert {"posterior_mean", "posterior_log_variance"} <= set(from_picture.arrays.files)
    assert "2 of 3" in from_picture.page.html.decode()
    assert len(from_picture.arrays["sigmas"]) == 2
    scale, arrays = 0.18215, from_picture.arrays
    noise = (arrays["start"] - arrays["posterior_mean"] * scale) / arrays["sigmas"][0]
    assert 0.8 < noise.std() < 1.2


# Wrong usage, and what cannot be written


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "page.png"], 2, "ends neither in .html"),
        (["--strength", 0.5], 2, "--strength goes with a picture to start from"),
        (["--steps", 0], 2, "steps is 0"),
        (["--init", "missing.png"], 4, "missing.png"),
        (["-m", "missing.safetensors"], 3, "missing.safetensors"),
        (["--compare", "a <lora:missing:1>"], 3, "missing"),
        (["-o", "-", "--json"], 2, "both write to stdout"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    explain: Callable[..., Result], arguments: list[object], code: int, said: str
) -> None:
    result = explain(*arguments)
    assert (result.code, result.stdout) == (code, b"")
    assert said in result.stderr
    assert not list(Path().rglob("*.html"))


def test_a_page_is_never_overwritten_unasked(explain: Callable[..., Result]) -> None:
    Path("page.html").write_text("mine")
    result = explain("-o", "page.html")
    assert result.code == 2
    assert "exists already" in result.stderr
    assert Path("page.html").read_text() == "mine"
    assert explain("-o", "page.html", "--overwrite").code == 0
    assert b"<!DOCTYPE html>" in Path("page.html").read_bytes()[:99]


def test_neither_are_the_tensors_of_another_run(explain: Callable[..., Result]) -> None:
    Path("kept").mkdir()
    Path("kept/run.json").write_text("mine")
    result = explain("-o", "page.html", "--save", "kept")
    assert result.code == 2
    assert "run.json" in result.stderr
    assert Path("kept/run.json").read_text() == "mine"
    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["run.json"]


def test_without_a_name_the_next_free_one_is_taken(explain: Callable[..., Result]) -> None:
    assert explain("--json").code == 0
    result = explain("-q", "--json")
    told = json.loads(result.lines[0])
    assert told["path"] == "outputs/explain-5-2.html"
    assert told["seed"] == 5
    assert Path(told["path"]).is_file()


def test_a_disk_that_is_full_leaves_nothing(
    explain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    left = [1]  # syncs of files that succeed before the disk is full

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_file() and left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    result = explain("-o", "page.html", "--save", "tensors")
    assert result.code == 1
    assert "no space is left" in result.stderr
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_at_strength_0_the_picture_is_told_of_without_steps(
    explain: Callable[..., Result], tiny_model: Path
) -> None:
    gradient(64, 64).save("init.png")
    result = explain("--init", "init.png", "--strength", 0, "-o", "page.html")
    assert result.code == 0, result.stderr
    page = ExplainedPage.read(Path("page.html"))
    assert "No step was run" in page.text
    assert page.pictures()[0].size == (64, 64)


# Other kinds of runs


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    """The tiny model, opened once."""
    return load(tiny_model, device="cpu", dtype="float32")


def explained(pipeline: Pipeline, prompt: str = "a dog", **options: Any) -> tuple[Run, ExplainedPage]:
    """A run of 64×64 pixels, and its page."""
    told: dict[str, Any] = {"seed": 5, "steps": 2, "width": 64, "height": 64} | options
    *_, run = watched(pipeline, Request(pipeline.resolve(GenerateOptions(prompt, **told))))
    assert isinstance(run, Run)
    return run, ExplainedPage(page(pipeline, [Told(run, ["sdscratch"])]))


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "heun", "cfg_interval": "1:8"},
        {"sampler": "dpm_fast", "scheduler": "karras", "steps": 4},
        {"deep_cache": 2, "negative_prompt": "the cat", "steps": 4},
        {"prompt_syntax": "compel", "width": 72, "height": 88},
        {"sampler": "euler_cfg++"},
    ],
)
def test_other_runs_are_told_of_too_and_draw_the_same_picture(
    pipeline: Pipeline, options: dict[str, Any]
) -> None:
    _, made = explained(pipeline, **options)
    drawn = pipeline.txt2img("a dog", **{"seed": 5, "steps": 2, "width": 64, "height": 64} | options)
    assert (pixels(made.pictures()[0]) == pixels(drawn)).all()


def test_with_little_memory_the_page_shows_the_same(guided: Explained, tiny_model: Path) -> None:
    low = sdscratch("explain", *GUIDED, "-m", tiny_model, "--low-memory", "-o", "page.html")
    assert low.code == 0, low.stderr
    made = ExplainedPage.read(Path("page.html"))
    assert (pixels(made.pictures()[0]) == pixels(guided.page.pictures()[0])).all()
    assert made.data[0]["texts"] == guided.page.data[0]["texts"]


def test_two_runs_are_told_of_side_by_side_and_where_they_differ(pipeline: Pipeline) -> None:
    runs = [explained(pipeline, prompt, steps=3)[0] for prompt in ("a dog", "the cat", "a dog")]
    told = [Told(run, ["sdscratch"]) for run in runs]
    made = ExplainedPage(page(pipeline, told[:2]))
    assert [tag for tag, _ in made.outline.elements].count("h1") == 2
    assert "“the cat”" in made.text
    assert [each["steps"] for each in made.data] == [3, 3]
    estimates = [np.stack([step.asked.denoised.numpy() for step in run.steps.values()]) for run in runs[:2]]
    apart = np.sqrt(((estimates[0] - estimates[1]) ** 2).mean(1))
    shown = np.stack(made.images("apart")).astype(float)
    assert np.abs(shown * apart.max() / 255 - apart).max() <= apart.max() / 255 / 2 + 1e-6
    assert "Both begin with the same noise" in made.text
    assert "the same to the last bit" in ExplainedPage(page(pipeline, told[::2])).text


@pytest.mark.parametrize(
    "prompt", ["[the dog:a cat:0.5] the", "a dog AND the cat:0.5", "a dog BREAK the cat", "", "dog " * 90]
)
def test_prompts_of_every_form_are_told_of(pipeline: Pipeline, prompt: str) -> None:
    told = explained(pipeline, prompt)[1].data[0]["attention"]
    assert list(told["maps"]) == ["8×8", "4×4", "2×2", "1×1"]
