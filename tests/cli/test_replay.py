"""`replay`: our own pictures come again pixel by pixel, others' as `--like` draws them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.diffusion.catalogue import SAMPLERS
from support.checkpoints import TINY, ldm_tensors
from support.cli import Result, sdscratch
from support.loras import changes, is_attention, targets, write_lora
from support.pictures import gradient
from support.upscalers import TINY_RRDB, random_tensors, write_pth

# one of each kind: with and without noise, of intervals, of steps of its own, multistep, restarting, unguided
FEW = ("ddpm", "euler_a", "dpm++sde", "dpm_adaptive", "plms", "unipc", "euler_cfg++")
SMALL = {"width": 64, "height": 64, "steps": 2, "model": "tiny", "seed": 5}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"prompt": "a dog <lora:ink:0.6>", "lora": ["chalk:0.5:0.3"], "negative_prompt": "cat", "clip_skip": 1},
    {"prompt": "a zorb", "vae": "other"},
    {"prompt": "a {dog|cat} and {apple|pizza}", "wildcard_seed": 3},
    {"prompt": "a (red:1.4) dog", "like": "a1111", "sampler": "euler_a", "clip_skip": 2},
    {"prompt": "dog", "like": "comfyui", "sampler": "dpm++sde", "scheduler": "karras"},
    {"prompt": "dog", "noise": "nv", "deep_cache": 2, "steps": 4, "cfg_interval": "0.3:5"},
    {"prompt": "dog", "init_img": "init.png", "fit": "contain", "background": "red", "strength": 0.6},
    {"prompt": "dog", "init_img": "init.png", "strength": 0},
    {"prompt": "[dog:cat:0.5] AND apple", "tile": 128, "width": 136},
    {"prompt": "dog", "hires": 1.5, "hires_strength": 0.6, "hires_prompt": "cat", "seamless": "x"},
    {"prompt": "dog", "hires": 1.25, "hires_upscaler": "4x-tiny", "hires_sampler": "DDIM"},
    {"prompt": "dog", "batch_count": 2, "eta": 0.5, "sampler": "ddim"},
)
UPSCALED = next(number for number, each in enumerate(VARIANTS, start=1) if "hires_upscaler" in each)


def scale(sampler: str) -> float:
    """Guidance where the sampler needs it, or a test looks closer; it takes twice the time."""
    return 3.0 if SAMPLERS[sampler].unguided or sampler in ("ddpm", "euler_a") else 1.0


def run(samplers: tuple[str, ...], variants: tuple[dict[str, Any], ...], output: str) -> None:
    """Draw with each of the samplers, and the variants."""
    lines = [{"prompt": "a red apple", "sampler": name, "cfg_scale": scale(name)} for name in samplers]
    text = "".join(f"{json.dumps(SMALL | line)}\n" for line in [*lines, *variants])
    Path(f"{output}.jsonl").write_text(text)
    drawn = sdscratch("run", f"{output}.jsonl", "-o", output, "-q", "--dtype", "float32", "--device", "cpu")
    assert drawn.code == 0, drawn.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """A model, add-ons and pictures of all kinds, drawn by one `run`."""
    folder = tmp_path_factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        for name in ("weights", "loras", "embeddings"):
            Path(name).mkdir()
        shutil.copy(tiny_model, "weights/tiny.safetensors")
        attention = [weight for weight in targets() if is_attention(weight)]
        write_lora(Path("loras/ink.safetensors"), changes(attention, seed=1))
        write_lora(Path("loras/chalk.safetensors"), changes(attention, seed=2))
        save_file({"emb_params": torch.ones(2, TINY.text.width)}, "embeddings/zorb.safetensors")
        vae = {name: t + 0.01 for name, t in ldm_tensors().items() if name.startswith("first_stage_model.")}
        save_file(vae, "weights/other.safetensors")
        Path("upscalers").mkdir()
        write_pth(Path("upscalers/4x-tiny.pth"), random_tensors(TINY_RRDB, "BSRGAN"))
        gradient(80, 64).save("init.png")
        run(FEW, VARIANTS, "own")
        yield folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))


def replayed(*words: object, code: int = 0) -> list[dict[str, Any]]:
    result = sdscratch("replay", *words, "--json", "-q")
    assert result.code == code, result.stderr
    return [json.loads(line) for line in result.lines]


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def own(number: int = 1) -> str:
    """A picture of the plan, by its number."""
    (path,) = Path("own").glob(f"{number:05}-*.png")
    return str(path)


def written(name: str, text: str, size: tuple[int, int] = (64, 64)) -> str:
    """A picture that says this, as the web UIs write it."""
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", size).save(name, pnginfo=info)
    return name


def model_hash() -> str:
    return hash_files([Path("weights/tiny.safetensors")])


def a1111(more: str = "", model: str | None = None) -> str:
    model = model or f"Model hash: {model_hash()}, Model: whatever"
    return (
        "a (red:1.3) dog\nNegative prompt: bad\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, "
        f"CFG scale: 5, Seed: 77, Size: 64x72, {model}{more}, Version: v1.10.1"
    )


def test_our_own_pictures_come_again_identical(folder: Path) -> None:
    check_identical(replayed("own/", "-o", "all"), len(FEW) + len(VARIANTS) + 1)


@pytest.mark.full
def test_every_samplers_pictures_come_again_identical(folder: Path) -> None:
    others = tuple(name for name in SAMPLERS if name not in FEW)
    run(others, (), "others")
    check_identical(replayed("others/", "-o", "all-others"), len(others))


def check_identical(lines: list[dict[str, Any]], count: int) -> None:
    assert len(lines) == count
    for line in lines:
        assert (line["identical"], line["differs"], line["unmatched"]) == (True, [], []), line
        assert (line["tool"], line["psnr"]) == ("sdscratch", None)
        assert Path(line["path"]).read_bytes() == Path(line["source"]).read_bytes()  # the record, too


def test_an_a1111_picture_is_drawn_as_like_a1111_draws() -> None:
    path = written("theirs.png", a1111(), (64, 72))
    (line,) = replayed(path, "-o", "theirs", "--dtype", "float32")
    assert (line["tool"], line["identical"], line["differs"], line["unmatched"]) == ("a1111", False, [], [])
    assert 0 < line["psnr"] < 60
    typed = sdscratch(
        "txt2img", "a (red:1.3) dog", "-n", "bad", "--like", "a1111", "--steps", 3, "--sampler", "DPM++ 2M",
        "--scheduler", "karras", "--cfg", 5, "--seed", 77, "--size", "64x72", "-m", "tiny", "-q",
        "--dtype", "float32", "-o", "typed.png",
    )  # fmt: skip
    assert typed.code == 0, typed.stderr
    assert np.array_equal(pixels(line["path"]), pixels("typed.png"))


def test_what_no_option_matches_and_what_a_name_alone_tells_is_said() -> None:
    path = written("odd.png", a1111(", Hypernet: x", model="Model hash: 0123456789, Model: tiny.safetensors"))
    (line,) = replayed(path, "-o", "odd")
    assert line["path"] is not None
    assert "Hypernet: x" in line["unmatched"]
    assert any("by name alone" in text for text in line["unmatched"])


def test_set_changes_what_it_says_and_nothing_else() -> None:
    (line,) = replayed(own(), "-o", "set", "--set", "steps=3", "--set", "cfg_scale=3", "--set", "seed=6")
    assert line["differs"] == ["steps", "seed"]
    assert not line["identical"]
    typed = sdscratch(
        "txt2img", "a red apple", "--steps", 3, "--seed", 6, "--sampler", "ddpm", "--cfg", 3,
        "--size", "64x64", "-m", "tiny", "-q", "--dtype", "float32", "-o", "set.png",
    )  # fmt: skip
    assert typed.code == 0, typed.stderr
    assert np.array_equal(pixels(line["path"]), pixels("set.png"))


def test_like_draws_as_another_tool_does() -> None:
    number = FEW.index("euler_a") + 1
    (line,) = replayed(own(number), "-o", "like", "--like", "comfyui")
    assert line["differs"] == ["like"]
    typed = sdscratch(
        "txt2img", "a red apple", "--steps", 2, "--seed", 5, "--sampler", "euler_a", "--cfg", 3,
        "--size", "64x64", "-m", "tiny", "-q", "--dtype", "float32", "--like", "comfyui", "-o", "like.png",
    )  # fmt: skip
    assert typed.code == 0, typed.stderr
    assert np.array_equal(pixels(line["path"]), pixels("like.png"))


def test_a_plan_of_pictures_draws_them(folder: Path) -> None:
    numbers = range(len(FEW) + 1, len(FEW) + len(VARIANTS))
    sources = [own(number) for number in numbers]
    result = sdscratch("replay", *sources, "--plan", "again.jsonl", "-q")
    assert (result.code, result.lines) == (0, ["again.jsonl"])
    assert sdscratch("replay", own(), "--plan", "again.jsonl").code == 2  # it is there already
    run = sdscratch("run", "again.jsonl", "-o", "again", "-q", "--dtype", "float32", "--device", "cpu")
    assert run.code == 0, run.stderr
    for source, drawn in zip(sources, run.lines, strict=True):
        assert np.array_equal(pixels(source), pixels(drawn)), source


def test_files_that_moved_are_found_by_their_hashes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, LoRAs, embedding, VAE and upscaler under other names, in a folder of their own."""
    source = [Path(own(len(FEW) + number)).resolve() for number in (1, 2, UPSCALED)]
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert [line["path"] for line in replayed(*source, code=3)] == [None] * 3
    for number, path in enumerate([*folder.glob("[wle]*s/*.safetensors"), *folder.glob("upscalers/*")]):
        (folder / "attic" / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "attic" / "deep" / f"m{number}{path.suffix}")
    lines = replayed(*source, "--look-in", folder / "attic")
    assert [(line["identical"], line["unmatched"]) for line in lines] == [(True, [])] * 3


def test_info_says_which_files_are_here(folder: Path) -> None:
    result = sdscratch("info", own(len(FEW) + 1), "--json")
    files = {
        each["name"]: (each["kind"], each["path"], each["by"]) for each in json.loads(result.stdout)["files"]
    }
    assert files == {
        "tiny": ("model", "weights/tiny.safetensors", "hash"),
        "chalk": ("lora", "loras/chalk.safetensors", "hash"),
        "ink": ("lora", "loras/ink.safetensors", "hash"),
    }
    theirs = written("info.png", a1111(model="Model hash: 0123456789, Model: nowhere"))
    shown = sdscratch("info", theirs).stdout.decode()
    assert "nowhere is not here" in shown


def test_a_spacing_that_the_other_tool_has_not_is_told() -> None:
    (line,) = replayed(own(), "-o", "spacing", "--set", "scheduler=trailing")
    (line,) = replayed(line["path"], "-o", "spacing", "--like", "a1111")
    assert line["path"] is not None
    assert line["unmatched"] == ["Schedule type: trailing, which a1111 has not"]


def failed(*words: object, code: int) -> list[dict[str, Any]]:
    lines = replayed(*words, code=code)
    for line in lines:
        assert list(line) == ["source", "tool", "path", "psnr", "identical", "differs", "unmatched"]
    return lines


def test_a_line_is_printed_also_where_nothing_could_be_drawn() -> None:
    gradient().save("bare.png")
    (line,) = failed("bare.png", code=3)
    assert (line["tool"], line["path"], line["identical"]) == (None, None, False)
    missing = written("missing.png", a1111(model="Model hash: 0123456789, Model: nowhere"))
    (line,) = failed(missing, code=3)
    assert (line["tool"], line["path"]) == ("a1111", None)
    assert "nowhere" in line["unmatched"][0]
    Path("text.png").write_text("no picture")
    (line,) = failed("text.png", code=4)
    assert failed("bare.png", own(), code=1)[0]["path"] is None


def test_a_picture_to_start_from_is_found_by_its_pixels_or_told_missing(folder: Path) -> None:
    source = Path(own(len(FEW) + 7))
    Path("apart").mkdir(exist_ok=True)
    alone = shutil.copy(source, "apart/a.png")
    Path("init.png").rename("apart/renamed.png")
    try:
        (line,) = replayed(alone, "-o", "init")  # beside it
        assert line["identical"]
        Path("cellar").mkdir(exist_ok=True)
        Path("apart/renamed.png").rename("cellar/x.png")
        (line,) = failed(alone, code=4)
        (line,) = replayed(alone, "-o", "init", "--look-in", "cellar")
        assert line["identical"]
        (line,) = replayed(alone, "-o", "init", "--set", "init_img=cellar/x.png")
        assert line["differs"] == ["init_img"]
        assert line["identical"]
    finally:
        next(path for path in map(Path, ("cellar/x.png", "apart/renamed.png")) if path.exists()).rename(
            "init.png"
        )
    theirs = written("img2img.png", a1111(", Denoising strength: 0.5"))
    (line,) = failed(theirs, code=4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "steps"], "must be KEY=VALUE"),
        (["--set", "stesp=3"], "the nearest is 'steps'"),
        (["--set", "steps=many"], "must be a whole number"),
        (["--like", "midjourney"], "must be one of"),
        (["--look-in", "nowhere"], "no such folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(words: list[str], message: str) -> None:
    result: Result = sdscratch("replay", own(), *words)
    assert result.code == 2
    assert message in result.stderr


def test_no_picture_is_written_over() -> None:
    first, second = (replayed(own(), "-o", "twice")[0]["path"] for _ in range(2))
    assert Path(first).name == Path(own()).name
    assert Path(second).name == f"{Path(own()).stem}-2.png"
    assert replayed(own(), "-o", "twice", "--overwrite")[0]["path"] == first
