"""img2img with a mask, as it is typed: what is kept, and what is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdscratch.cli.help import with_numbers
from sdscratch.images import masks_kept, read_records, read_whole
from support.cli import Result, sdscratch
from support.reference import sketch

Draw = Callable[..., Result]
SMALL = ("--steps", 2, "--strength", 0.9, "--seed", 5, "--device", "cpu", "--dtype", "float32")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An init picture of odd sides, one with transparency, masks; where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    init = sketch(101, 75).copy()
    init.save("init.png")
    init.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 101).astype(np.uint8), (75, 1))))
    init.save("clear.png")
    mask = np.zeros((75, 101), np.uint8)
    mask[20:60, 30:64] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(mask[:70]).save("other.png")
    Image.new("L", (101, 75)).save("black.png")
    return tmp_path


@pytest.fixture
def change(tiny_model: Path) -> Draw:
    """Change a picture towards "a dog"."""

    def run(*arguments: object) -> Result:
        return sdscratch("img2img", *arguments, "-m", tiny_model, *SMALL)

    return run


def kept(path: str, init: str, mask: str | None = "mask.png") -> bool | None:
    record = read_records(path).record
    assert record is not None
    return masks_kept(record, read_whole(init), None if mask is None else read_whole(mask), read_whole(path))


@pytest.mark.parametrize("init", ["init.png", "clear.png"])
@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("--only-masked", "--size", "64x72"),
        ("--soft-mask", "--mask-blur", 9),
        ("--mask-invert", "--masked-content", "fill", "--like", "comfyui"),
        ("--masked-content", "noise", "--like", "a1111"),
        ("--masked-content", "nothing", "--like", "diffusers", "-b", 2, "--batch-size", 2),
        ("--extend", "left=16,bottom=7", "--like", "sdcpp"),
    ],
    ids=str,
)
def test_pixels_outside_the_mask_are_the_pictures_own(
    change: Draw, init: str, asked: tuple[object, ...]
) -> None:
    result = change(init, "a dog", "--mask", "mask.png", *asked, "-o", "out/")
    assert result.code == 0, result.stderr
    for path in result.lines:
        before, after = read_whole(init), read_whole(path)
        assert after.mode == before.mode
        extended = "--extend" in asked
        assert after.size == ((117, 82) if extended else before.size)
        record = read_records(path).record
        assert record is not None
        assert record.mask is not None
        assert record.mask.kept
        assert kept(path, init) is True
        inner = np.asarray(after)[:75, 16:] if extended else np.asarray(after)
        changed = (inner != np.asarray(before)).any(-1)
        assert changed.any()
        if "--mask-invert" not in asked and not extended:
            reach = 28 if "--mask-blur" in asked else 13
            assert not changed[: 20 - reach].any() if reach < 20 else True
            assert not changed[:, 64 + reach :].any()


def test_a_changed_pixel_outside_the_mask_is_found(change: Draw) -> None:
    change("init.png", "a dog", "--mask", "mask.png", "-o", "out.png")
    record = read_records("out.png").record
    assert record is not None
    picture = read_whole("out.png")
    picture.putpixel((0, 0), (1, 2, 3))
    assert masks_kept(record, read_whole("init.png"), read_whole("mask.png"), picture) is False


def test_verify_says_whether_what_lies_outside_is_kept(change: Draw, tiny_model: Path) -> None:
    change("init.png", "a dog", "--mask", "mask.png", "-o", "out.png")
    look = ("--look-in", tiny_model.parent, "--json")
    proven = sdscratch("verify", "out.png", *look)
    assert proven.code == 0, proven.stderr
    assert "outside its mask every pixel is" in json.loads(proven.lines[0])["why"]
    with Image.open("out.png") as image:
        picture, texts = image.convert("RGB"), PngInfo()
        for name, text in image.text.items():  # type: ignore[attr-defined]
            texts.add_text(name, text)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save("changed.png", pnginfo=texts)
    refused = sdscratch("verify", "changed.png", *look)
    assert refused.code == 1
    told = json.loads(refused.lines[0])
    assert not told["identical"]
    assert "outside its mask it is not the picture that was repainted" in told["why"]


def test_no_paste_says_so(change: Draw) -> None:
    change("init.png", "a dog", "--mask", "mask.png", "--no-paste", "-o", "out.png")
    record = read_records("out.png").record
    assert record is not None
    assert record.mask is not None
    assert not record.mask.kept
    assert kept("out.png", "init.png") is None
    assert (np.asarray(read_whole("out.png"))[:5] != np.asarray(read_whole("init.png"))[:5]).any()


def test_webp_keeps_the_pixels_and_jpeg_does_not_claim_to(change: Draw) -> None:
    change("clear.png", "a dog", "--mask", "mask.png", "-o", "out.webp")
    assert kept("out.webp", "clear.png") is True
    result = change("init.png", "a dog", "--mask", "mask.png", "-o", "out.jpg")
    assert "JPEG changes pixels" in result.stderr
    assert kept("out.jpg", "init.png") is None


def test_the_transparent_part_is_painted(change: Draw) -> None:
    hole = read_whole("mask.png").getchannel(0).point(lambda level: 255 - level)
    whole = read_whole("init.png")
    whole.putalpha(hole)
    whole.save("hole.png")
    result = change("hole.png", "a dog", "--mask", "alpha", "-o", "out.png")
    assert result.code == 0, result.stderr
    assert kept("out.png", "hole.png", None) is True
    assert np.asarray(read_whole("out.png"))[..., 3].min() == 255


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (4, "empty", ("init.png", "a dog", "--mask", "black.png")),
        (4, "101x70", ("init.png", "a dog", "--mask", "other.png", "--strict")),
        (4, "there is no picture", ("init.png", "a dog", "--mask", "nowhere.png")),
        (4, "transparent", ("init.png", "a dog", "--mask", "alpha")),
        (2, "--mask-blur", ("init.png", "a dog", "--mask-blur", 3)),
        (2, "--no-paste", ("init.png", "a dog", "--no-paste")),
        (2, "--extend", ("init.png", "a dog", "--extend", "up=3")),
        (2, "mask-blur", ("init.png", "a dog", "--mask", "mask.png", "--mask-blur", -1)),
        (2, "masked-content", ("init.png", "a dog", "--mask", "mask.png", "--masked-content", "cat")),
        (2, "JPEG", ("clear.png", "a dog", "--mask", "mask.png", "-o", "out/x.jpg")),
        (2, "stdin", ("-", "a dog", "--mask", "-")),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_nothing_is_written(
    change: Draw, folder: Path, code: int, words: str, arguments: tuple[object, ...]
) -> None:
    before = sorted(folder.rglob("*"))
    result = change(*arguments)
    assert result.code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_a_mask_of_another_size_is_resized_and_said(change: Draw) -> None:
    result = change("init.png", "a dog", "--mask", "other.png", "-o", "out.png")
    assert result.code == 0
    said = " ".join(result.stderr.split())
    assert said.count("the mask is 101x70, and is resized to the init picture's 101x75") == 1
    quiet = change("init.png", "a dog", "--mask", "other.png", "-o", "quiet.png", "-q")
    assert quiet.stderr == ""
    assert kept("out.png", "init.png", "other.png") is True


def test_a_plan_has_masks(tiny_model: Path) -> None:
    lines = [
        {
            "prompt": "a dog",
            "init_img": "init.png",
            "mask": "mask.png",
            "seed": 1,
            "only_masked": 8,
            "size": "64x64",
        },
        {"prompt": "a dog", "init_img": "init.png", "extend": "right=11", "seed": 1},
    ]
    Path("plan.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = ("--steps", 2, "--strength", 0.9, "--device", "cpu", "--dtype", "float32", "-m", tiny_model)
    result = sdscratch("run", "plan.jsonl", "--json", "-o", "out/", *small)
    assert result.code == 0, result.stderr
    first, second = (json.loads(line)["path"] for line in result.lines)
    assert kept(first, "init.png") is True
    assert kept(second, "init.png", None) is True
    assert read_whole(second).size == (112, 75)
    again = sdscratch("run", "plan.jsonl", "--json", "-o", "out/", *small)
    assert all(json.loads(line)["done"] for line in again.lines)
    Path("bad.jsonl").write_text(json.dumps({**lines[0], "mask": "black.png"}))
    bad = sdscratch("run", "bad.jsonl", "-o", "bad/", *small)
    assert (bad.code, "line 1" in bad.stderr, "empty" in bad.stderr) == (4, True, True)


def test_an_option_that_may_lack_its_number_takes_none_that_is_not_its_own() -> None:
    alone = {"--only-masked": 32}
    assert with_numbers(["--only-masked", "a dog"], alone) == ["--only-masked", "32", "a dog"]
    assert with_numbers(["--only-masked", "8", "x"], alone) == ["--only-masked", "8", "x"]
    assert with_numbers(["x", "--only-masked"], alone) == ["x", "--only-masked", "32"]
    assert with_numbers(["--", "--only-masked"], alone) == ["--", "--only-masked"]


def test_masked_pictures_are_drawn_again_from_their_records(change: Draw, tiny_model: Path) -> None:
    """And proven, pixel by pixel; a mask that is nowhere is told."""
    hole = read_whole("init.png")
    hole.putalpha(read_whole("mask.png").getchannel(0).point(lambda level: 255 - level))
    hole.save("hole.png")
    small = ("--only-masked", "8", "--size", "64x72")
    for name, init, asked in (
        ("a.png", "clear.png", ("--mask", "mask.png", "--mask-blur", 2)),
        ("b.png", "init.png", ("--mask", "mask.png", *small, "--masked-content", "fill")),
        ("c.png", "hole.png", ("--mask", "alpha", "--extend", "left=16")),
    ):
        assert change(init, "a dog", *asked, "-o", name).code == 0
    model = ("--set", f"model={tiny_model}")
    again = sdscratch("replay", "a.png", "b.png", "c.png", "--json", *model, "-o", "again/")
    told = [json.loads(line) for line in again.lines]
    assert [each["identical"] for each in told] == [True] * 3, told
    Path("mask.png").unlink()
    lost = sdscratch("replay", "a.png", "--json", *model, "-o", "lost/")
    assert lost.code == 4
    assert "mask" in lost.stdout.decode()
