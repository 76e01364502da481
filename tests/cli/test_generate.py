"""`txt2img` and `img2img`: the pictures, their files and their records."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdscratch.errors import SdscratchError
from sdscratch.generation.pipeline import Pipeline
from sdscratch.images import read_picture, read_records
from support.cli import Result, sdscratch
from support.pictures import gradient

Draw = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs; nothing of the user's is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    return tmp_path


@pytest.fixture
def draw(tiny_model: Path) -> Draw:
    """Draw 64×64 pixels of "a dog" in two steps, seed 5; what is given comes on top."""

    def run(*arguments: object, prompt: str = "a dog", **streams: object) -> Result:
        small = ["--size", "64x64", "--steps", 2, "--seed", 5, "--device", "cpu", "--dtype", "float32"]
        return sdscratch("txt2img", prompt, "-m", tiny_model, *small, *arguments, **streams)  # type: ignore[arg-type]

    return run


@pytest.fixture
def change(tiny_model: Path) -> Draw:
    """Change a picture towards "a dog" in two steps, seed 5."""

    def run(init: object, *arguments: object) -> Result:
        small = ["--steps", 2, "--strength", 0.5, "--seed", 5, "--device", "cpu", "--dtype", "float32"]
        return sdscratch("img2img", init, "a dog", "-m", tiny_model, *small, *arguments)

    return run


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_stdout_holds_the_path_as_it_was_asked_for_and_stderr_a_line_a_stage(draw: Draw) -> None:
    result = draw("-o", "./a/../dog.png")
    assert (result.code, result.stdout) == (0, b"./a/../dog.png\n")
    stages = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert stages == ["starting", "loading", "encoding", "denoising", "decoding", "seed 5"]
    assert " 2 it, " in result.stderr.splitlines()[3]
    assert pixels("dog.png").shape == (64, 64, 3)


def test_pictures_are_numbered_in_outputs_by_default(draw: Draw) -> None:
    assert draw().lines + draw("-b", 2).lines == [
        "outputs/0001-5.png",
        "outputs/0002-5.png",
        "outputs/0003-6.png",
    ]


def test_several_pictures_under_one_name_are_numbered(draw: Draw) -> None:
    result = draw("-o", "new/dog.png", "-b", 2)
    assert result.lines == ["new/dog-1.png", "new/dog-2.png"]
    assert [line for line in result.stderr.splitlines() if line.startswith("seed")] == ["seed 5", "seed 6"]
    assert "denoising 1/2:" in result.stderr
    assert "decoding 2/2:" in result.stderr


def test_json_has_one_line_a_picture(draw: Draw) -> None:
    result = draw("--json", "-b", 2, "-o", "é/", prompt="ein Hund, größer")
    lines = [json.loads(line) for line in result.lines]
    assert [line["seed"] for line in lines] == [5, 6]
    assert [line["path"] for line in lines] == ["é/0001-5.png", "é/0002-6.png"]
    for line in lines:
        assert list(line) == ["path", "seed", "prompt", "options", "model_hash", "timings"]
        record = read_records(line["path"]).record
        assert record is not None
        assert line["prompt"] == record.options.prompt == "ein Hund, größer"
        assert line["options"] == asdict(record.options)
        assert line["model_hash"] == record.model_hash
        assert set(line["timings"]) == {"load", "encode", "denoise", "decode"}


def test_strip_writes_no_record_and_sidecar_writes_it_beside(draw: Draw) -> None:
    assert draw("-o", "a.png", "--strip", "--sidecar").code == 0
    with Image.open("a.png") as image:
        assert not image.info
    record = read_records("a.png").record
    assert record is not None
    assert (record.options.prompt, record.threads) == ("a dog", torch.get_num_threads())
    assert draw("-o", "b.png", "--strip").code == 0
    assert read_records("b.png").tool is None
    Path("c.json").touch()
    again = draw("-o", "c.png", "--sidecar")
    assert (again.code, "c.json exists already" in again.stderr, Path("c.png").exists()) == (2, True, False)
    assert draw("-o", "-", "--sidecar").code == 2


def test_a_path_is_printed_as_the_bytes_it_was_typed_in(draw: Draw) -> None:
    name = os.fsdecode(b"d\xf6g.png")
    try:
        Path(name).touch()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    Path(name).unlink()
    assert draw("-o", name).stdout == b"d\xf6g.png\n"


def test_quiet_is_silent(draw: Draw) -> None:
    result = draw("-q", "-o", "dog.png", prompt="a dog " * 100)
    assert (result.stdout, result.stderr) == (b"dog.png\n", "")


def test_verbose_says_where_it_computes_and_why(draw: Draw) -> None:
    assert "computing on cpu (asked for), float32 (asked for)\n" in draw("-v").stderr


def test_a_seed_from_chance_is_told(draw: Draw, tiny_model: Path) -> None:
    small = ["-m", tiny_model, "--size", "64x64", "--steps", 1]
    results = [sdscratch("txt2img", "a dog", *small, "-o", name) for name in ("a.png", "b.png")]
    seeds = [result.stderr.splitlines()[-1].removeprefix("seed ") for result in results]
    assert seeds[0] != seeds[1]
    for name, seed in zip(("a.png", "b.png"), seeds, strict=True):
        record = read_records(name).record
        assert record is not None
        assert str(record.options.seed) == seed


def test_a_seed_gives_the_same_bytes_alone_and_in_any_batch(draw: Draw) -> None:
    draw("-o", "alone.png", "--seed", 7)
    draw("-o", "again.png", "--seed", 7)
    draw("-o", "one.png", "-b", 3)
    draw("-o", "at-once.png", "-b", 3, "--batch-size", 2)
    alone = Path("alone.png").read_bytes()
    assert Path("again.png").read_bytes() == alone
    assert Path("one-3.png").read_bytes() == alone
    for index in (1, 2, 3):
        assert Path(f"one-{index}.png").read_bytes() == Path(f"at-once-{index}.png").read_bytes()
    assert Path("one-1.png").read_bytes() != Path("one-2.png").read_bytes()


def test_the_changed_picture_is_the_same_in_any_batch(change: Draw) -> None:
    gradient(72, 64).save("init.png")
    change("init.png", "-o", "alone.png", "--seed", 6)
    change("init.png", "-o", "batch.png", "-b", 2, "--batch-size", 2)
    assert Path("alone.png").read_bytes() == Path("batch-2.png").read_bytes()
    assert pixels("alone.png").shape == (64, 72, 3)


def test_stdout_takes_the_picture_itself(draw: Draw) -> None:
    result = draw("-o", "-")
    draw("-o", "dog.png")
    assert result.stdout == Path("dog.png").read_bytes()
    assert not Path("outputs").exists()


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_the_prompt_comes_from_stdin_without_its_line_ending(draw: Draw, ending: bytes) -> None:
    draw("-o", "dog.png", prompt="-", stdin="a dög".encode() + ending)
    record = read_records("dog.png").record
    assert record is not None
    assert record.options.prompt == "a dög"


def test_an_empty_prompt_is_fine(draw: Draw) -> None:
    assert draw(prompt="").code == draw(prompt="-", stdin=b"\n").code == 0


def test_an_empty_pipe_is_refused(draw: Draw) -> None:
    result = draw(prompt="-", stdin=b"")
    assert result.code == 2
    assert "stdin is empty" in result.stderr


def test_what_is_cut_of_a_prompt_is_told_once(draw: Draw) -> None:
    result = draw("-b", 2, "--prompt-syntax", "plain", prompt="dog " * 75 + "on the red apple")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "'on the red apple'" in warnings[0]


def test_a_long_prompt_is_read_to_its_end(draw: Draw) -> None:
    result = draw(prompt="dog " * 75 + "on the red apple")
    assert "warning" not in result.stderr


def test_the_environment_names_the_model(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("SDSCRATCH_MODEL", str(tiny_model))
    assert sdscratch("txt2img", "a dog", "--size", "64x64", "--steps", 1).code == 0
    monkeypatch.setenv("SDSCRATCH_MODEL", "nowhere.safetensors")
    result = sdscratch("txt2img", "a dog")
    assert result.code == 3
    assert "nowhere.safetensors" in result.stderr


@pytest.mark.parametrize(
    ("spelling", "sampler", "scheduler"),
    [
        ("DPM++ 2M Karras", "dpm++2m", "karras"),
        ("k_euler_a", "euler_a", None),
        ("EulerDiscreteScheduler", "euler", None),
    ],
)
def test_samplers_are_understood_as_other_tools_spell_them(
    spelling: str, sampler: str, scheduler: str | None, draw: Draw
) -> None:
    draw("--sampler", spelling, "-o", "theirs.png")
    draw("--sampler", sampler, *(["--scheduler", scheduler] if scheduler else []), "-o", "ours.png")
    assert Path("theirs.png").read_bytes() == Path("ours.png").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_says_how_it_was_made(draw: Draw, tiny_model: Path, suffix: str) -> None:
    draw("-o", f"dog.{suffix}", "--negative-prompt", "a cat", "--sampler", "euler", "--cfg", 3.5)
    record = read_records(f"dog.{suffix}").record
    assert record is not None
    options = record.options
    assert (record.mode, record.model, record.dtype, record.device) == ("txt2img", "tiny", "float32", "cpu")
    assert (options.prompt, options.negative_prompt, options.sampler) == ("a dog", "a cat", "euler")
    assert (options.width, options.height, options.steps, options.seed) == (64, 64, 2, 5)
    assert options.cfg_scale == 3.5
    with Image.open(f"dog.{suffix}") as image:
        if suffix == "png":
            text = image.info["parameters"]
        else:
            text = image.getexif().get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    assert text == (
        "a dog\nNegative prompt: a cat\nSteps: 2, Sampler: Euler, CFG scale: 3.5, Seed: 5, Size: 64x64, "
        f"Model hash: {record.model_hash}, Model: tiny, RNG: CPU, Record hash: {record.hash()}, "
        f'Version: sdscratch {record.sdscratch}, Hashes: {{"model": "{record.model_hash}"}}'
    )


def test_a_changed_picture_says_what_it_was_made_from(change: Draw) -> None:
    gradient(80, 64).save("init.png")
    change("init.png", "-o", "dog.png", "--size", "64x64", "--fit", "contain")
    record = read_records("dog.png").record
    assert record is not None
    assert (record.mode, record.fit, record.options.strength) == ("img2img", "contain", 0.5)
    gradient(80, 64).save("other.webp", lossless=True)
    change("other.webp", "-o", "webp.png", "--size", "64x64", "--fit", "contain")
    assert Path("webp.png").read_bytes() == Path("dog.png").read_bytes()  # the pixels count, not the packing
    assert len({change("init.png", "-o", "-", "--size", "64x64", "--fit", fit).stdout
                for fit in ("cover", "contain", "stretch")}) == 3  # fmt: skip


# --- Pictures that come in -------------------------------------------------------------------------------

BASE = np.asarray(gradient(64, 72))


def save_cmyk() -> tuple[str, Image.Image]:
    cmyk = Image.fromarray(BASE).convert("CMYK")
    cmyk.save("init.jpg", quality=100)
    with Image.open("init.jpg") as stored:
        return "init.jpg", stored.convert("RGB")


def save_16_bit() -> tuple[str, Image.Image]:
    Image.fromarray(BASE[..., 0].astype(np.uint16) * 257).save("init.png")
    return "init.png", Image.fromarray(BASE[..., 0]).convert("RGB")


def save_palette() -> tuple[str, Image.Image]:
    few = Image.fromarray(BASE).quantize(16)
    few.save("init.png")
    return "init.png", few.convert("RGB")


def save_alpha() -> tuple[str, Image.Image]:
    alpha = np.full((*BASE.shape[:2], 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.concatenate([BASE, alpha], -1)).save("init.png")
    white = BASE.copy()
    white[:20] = 255
    return "init.png", Image.fromarray(white)


def save_rotated() -> tuple[str, Image.Image]:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be shown turned clockwise
    Image.fromarray(BASE).save("init.webp", lossless=True, exif=exif)
    return "init.webp", Image.fromarray(np.rot90(BASE, -1).copy())


def save_grey() -> tuple[str, Image.Image]:
    grey = Image.fromarray(BASE).convert("L")
    grey.save("init.png")
    return "init.png", grey.convert("RGB")


@pytest.mark.parametrize(
    "save",
    [save_cmyk, save_16_bit, save_palette, save_alpha, save_rotated, save_grey],
)
def test_a_picture_of_any_kind_is_taken_for_what_it_shows(
    save: Callable[[], tuple[str, Image.Image]], change: Draw
) -> None:
    name, plain = save()
    plain.save("plain.png")
    assert change(name, "-o", "kind.png").code == change("plain.png", "-o", "rgb.png").code == 0
    assert pixels("rgb.png").shape[1::-1] == plain.size
    assert np.array_equal(pixels("kind.png"), pixels("rgb.png"))


def test_the_background_can_be_chosen(change: Draw) -> None:
    name, white = save_alpha()
    array = np.asarray(white).copy()
    array[:20] = (255, 0, 0)
    Image.fromarray(array).save("red.png")
    change(name, "-o", "alpha.png", "--background", "#f00")
    change("red.png", "-o", "plain.png")
    assert np.array_equal(pixels("alpha.png"), pixels("plain.png"))


def test_sides_are_rounded_down_to_8(change: Draw) -> None:
    gradient(79, 66).save("init.png")
    change("init.png", "-o", "dog.png")
    assert pixels("dog.png").shape == (64, 72, 3)


def test_init_img_is_another_name_for_the_first_argument(change: Draw, tiny_model: Path) -> None:
    gradient(64, 64).save("init.png")
    options = ["--steps", 2, "--strength", 0.5, "--seed", 5, "--dtype", "float32", "--device", "cpu"]
    sdscratch("img2img", "a dog", "-i", "init.png", "-m", tiny_model, "-o", "a.png", *options)
    change("init.png", "-o", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_strength_0_encodes_and_decodes_only(change: Draw) -> None:
    gradient(64, 64).save("init.png")
    kept = change("init.png", "--strength", 0, "-o", "kept.png")
    rounded = change("init.png", "--strength", 0.49, "-o", "rounded.png")
    assert kept.code == rounded.code == 0
    assert np.array_equal(pixels("kept.png"), pixels("rounded.png"))
    assert "denoising" not in kept.stderr


def test_strength_1_ignores_the_picture(change: Draw) -> None:
    gradient(64, 64).save("init.png")
    Image.new("RGB", (64, 64), "navy").save("other.png")
    apart = {}
    for strength in (0, 1):
        for name in ("init", "other"):
            change(f"{name}.png", "--strength", strength, "-o", f"{name}-{strength}.png")
        one, other = (pixels(f"{name}-{strength}.png").astype(int) for name in ("init", "other"))
        apart[strength] = np.abs(one - other).mean()
    assert apart[1] < apart[0] / 2  # the highest noise leaves a trace of what is under it


# --- What goes wrong on the way --------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_leaves_nothing(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = draw("-o", "new/dog.png", "-q")
    assert result.code == 1
    assert result.stderr == (
        "sdscratch: error: cannot write new/dog.png: no space is left on its disk; "
        "free some, or choose another place\n"
    )
    assert list(Path("new").iterdir()) == []


def test_a_picture_that_cannot_be_written_ends_the_batch_and_is_told(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    pictures: list[int] = []

    def full_at_the_second(descriptor: int) -> None:
        pictures.append(descriptor)
        if len(pictures) > 2:  # a picture is two: its file, and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    draw("-o", "warm.png")  # the model's hash has been written
    monkeypatch.setattr(os, "fsync", full_at_the_second)
    result = draw("-o", "new/dog.png", "-b", 4, "-q")
    assert (result.code, result.lines) == (1, ["new/dog-1.png"])
    assert result.stderr == (
        "sdscratch: error: picture 2 of 4 failed: cannot write new/dog-2.png: no space is left on its disk; "
        "free some, or choose another place\n"
    )
    assert [path.name for path in Path("new").iterdir()] == ["dog-1.png"]


def test_of_two_failures_the_earlier_pictures_is_told(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdscratch.device import Placement
    from sdscratch.generation.outputs import OutputPlan

    monkeypatch.setattr(Placement, "batches", True)  # so the one is written while the other is made
    decode = Pipeline.decode
    decoding = threading.Event()

    def fail_to_save(self: OutputPlan, index: int, *_: object) -> None:
        decoding.wait(60)
        raise SdscratchError(f"picture {index} is not to be had")

    def fail_at_the_second(self: Pipeline, latents: object, tile: int, **more: Any) -> object:
        if "latents" in seen:
            decoding.set()
            raise SdscratchError("the decoder is broken")
        seen.append("latents")
        return decode(self, latents, tile, **more)  # type: ignore[arg-type]

    seen: list[str] = []
    monkeypatch.setattr(OutputPlan, "save", fail_to_save)
    monkeypatch.setattr(Pipeline, "decode", fail_at_the_second)
    result = draw("-b", 2, "--batch-size", 2, "-q")
    assert (result.code, result.stderr) == (1, "sdscratch: error: picture 0 is not to be had\n")


@pytest.mark.parametrize("size", [1, 2])
def test_pictures_written_beside_the_next_are_told_in_order(
    size: int, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdscratch.device import Placement

    draw("-o", "plain.png", "-b", 3)
    monkeypatch.setattr(Placement, "batches", True)
    result = draw("-o", "dog.png", "-b", 3, "--batch-size", size)
    assert result.lines == ["dog-1.png", "dog-2.png", "dog-3.png"]
    assert [line for line in result.stderr.splitlines() if line.startswith("seed")] == [
        "seed 5", "seed 6", "seed 7",
    ]  # fmt: skip
    if size == 1:
        for index in (1, 2, 3):
            assert Path(f"dog-{index}.png").read_bytes() == Path(f"plain-{index}.png").read_bytes()


def fail_at_the_second(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the first picture be decoded, and raise `error` at the next."""
    decode = Pipeline.decode
    calls: list[int] = []

    def failing(self: Pipeline, latents: object, tile: int, **more: Any) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return decode(self, latents, tile, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "decode", failing)


def test_ctrl_c_keeps_and_tells_what_was_being_written(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdscratch.device import Placement

    monkeypatch.setattr(Placement, "batches", True)
    fail_at_the_second(monkeypatch, KeyboardInterrupt())
    result = draw("-o", "dog.png", "-b", 3, "-q")
    assert (result.code, result.lines, result.stderr) == (130, ["dog-1.png"], "sdscratch: interrupted\n")


def test_a_batch_keeps_what_is_done_and_says_what_failed(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdscratch.device import out_of_memory_explained

    fail_at_the_second(monkeypatch, MemoryError())
    monkeypatch.setattr(Pipeline, "decode", out_of_memory_explained()(Pipeline.decode))
    result = draw("-o", "dog.png", "-b", 3, "--batch-size", 3)
    assert result.code == 1
    assert result.lines == ["dog-1.png"]
    error = result.stderr.splitlines()[-1]
    assert error.startswith("sdscratch: error: picture 2 of 3 failed: out of memory; ")
    assert [path.name for path in Path().glob("*.png")] == ["dog-1.png"]


def test_ctrl_c_keeps_what_is_done(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at_the_second(monkeypatch, KeyboardInterrupt())
    result = draw("-o", "dog.png", "-b", 3, "-q")
    assert (result.code, result.lines, result.stderr) == (130, ["dog-1.png"], "sdscratch: interrupted\n")
    assert [path.name for path in Path().iterdir() if path.name != ".cache"] == ["dog-1.png"]


def test_a_model_that_cannot_be_hashed_is_an_error(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdscratch.checkpoints.model import ModelFiles
    from sdscratch.errors import CheckpointError

    def fail(self: ModelFiles) -> str:
        raise CheckpointError("the file is gone; put it back")

    monkeypatch.setattr(ModelFiles, "hash", fail)
    result = draw("-q")
    assert (result.code, result.stderr) == (3, "sdscratch: error: the file is gone; put it back\n")


def test_an_init_from_stdin_is_read(tiny_model: Path) -> None:
    data = io.BytesIO()
    gradient(64, 64).save(data, "PNG")
    options = ["-m", tiny_model, "--steps", 1, "--strength", 0, "-o", "dog.png"]
    assert sdscratch("img2img", "-", "a dog", *options, stdin=data.getvalue()).code == 0
    assert read_picture("dog.png").size == (64, 64)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the full disk of Linux")
def test_a_full_disk_behind_stdout_is_one_sentence(draw: Draw) -> None:
    for option in (["-o", "-"], ["-o", "dog.png", "--overwrite"], ["--json"]):
        with Path("/dev/full").open("wb", buffering=0) as full:
            result = draw("-q", *option, stdout=full)
        assert result.code == 1, option
        assert result.stderr.startswith("sdscratch: error: cannot write to standard output: no space is left")


def test_a_film_shows_every_step_and_ends_with_the_picture(draw: Draw) -> None:
    result = draw("-o", "dog.png", "--film", "films/dog.apng", "--steps", 3)
    assert (result.code, result.lines) == (0, ["dog.png"])
    with Image.open("films/dog.apng") as film:
        assert film.n_frames == 4
        film.seek(3)
        assert np.array_equal(np.asarray(film.convert("RGB")), pixels("dog.png"))
    assert draw("-o", "e.png", "--film", "films/dog.apng").code == 2
    assert draw("-o", "f.png", "--frames", 3).code == 2
    several = draw("-o", "g.png", "-b", 2, "--film", "g.gif", "--frames", 2, "--film-loop", "--steps", 3)
    assert several.code == 0, several.stderr
    with Image.open("g-2.gif") as film:
        assert film.n_frames == 2


def test_show_draws_the_picture_on_a_terminal_and_nowhere_else(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("TMUX", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID"):
        monkeypatch.delenv(name, raising=False)
    shown = draw("-o", "a.png", "--show", "-q", terminals=["stderr"])
    assert shown.code == 0
    assert shown.stderr.count("\u2580") == 64 * 32
    assert "\u2580" not in draw("-o", "b.png", "--show").stderr
