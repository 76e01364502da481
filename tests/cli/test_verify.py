"""`verify`: one pixel, or one character, and a picture is no longer what its record says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdscratch.errors import SdscratchError
from sdscratch.images import read_records
from sdscratch.images.exif import exif_data
from support.cli import sdscratch
from support.pictures import gradient


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """Pictures, and the model that they were drawn with."""
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        Path("weights").mkdir()
        shutil.copy(tiny_model, "weights/tiny.safetensors")
        typed = [
            "a dög, (red:1.2)",
            "-n",
            "bad",
            "-m",
            "tiny",
            "--size",
            "64x64",
            "--steps",
            2,
            "--seed",
            5,
            "-q",
        ]
        for name in ("a.png", "a.jpg", "a.webp"):
            drawn = sdscratch("txt2img", *typed, "-q", "--dtype", "float32", "-o", name)
            assert drawn.code == 0, drawn.stderr
        yield folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))


def verified(*words: object, code: int = 0) -> list[dict[str, Any]]:
    result = sdscratch("verify", *words, "--json", "-q")
    assert result.code == code, result.stderr
    lines = [json.loads(line) for line in result.lines]
    assert all(list(line) == ["path", "identical", "psnr", "why"] for line in lines)
    return lines


def copied(name: str, change: Callable[[Image.Image, dict[str, str]], object]) -> str:
    """The picture and its texts, with a change."""
    with Image.open("a.png") as image:
        texts = {key: value for key, value in image.info.items() if isinstance(value, str)}
        copy = image.copy()
    copy.info = {}
    change(copy, texts)
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    copy.save(name, pnginfo=info)
    return name


def test_what_nobody_touched_is_proven_in_every_format() -> None:
    lines = verified("a.png", "a.jpg", "a.webp")
    assert [line["identical"] for line in lines] == [True] * 3
    assert (lines[0]["psnr"], lines[0]["why"]) == (None, "")
    for line in lines[1:]:
        assert line["psnr"] > 20
        assert "level by level" in line["why"]
    assert sdscratch("verify", copied("same.png", lambda image, texts: None), "-q").code == 0


def test_one_level_of_one_pixel_is_found() -> None:
    def change(image: Image.Image, texts: object) -> None:
        red, green, blue = image.getpixel((31, 7))
        image.putpixel((31, 7), (red, green, blue ^ 1))

    (line,) = verified(copied("pixel.png", change), code=1)
    assert not line["identical"]
    assert line["psnr"] > 80
    assert "1 pixels differ, the first at 31, 7" in line["why"]


def test_every_character_of_the_record_counts() -> None:
    with Image.open("a.png") as image:
        text = image.info["sdscratch"]
    places = [
        text.index(word) + len(word) for word in ('"seed":', '"threads":', '"sdscratch":"0.', '"prompt":"a d')
    ]
    for place in places:

        def change(image: object, texts: dict[str, str], place: int = place) -> None:
            other = "7" if text[place] != "7" else "8"
            texts["sdscratch"] = text[:place] + other + text[place + 1 :]

        result = sdscratch("verify", copied("record.png", change), "--json", "-q")
        assert result.code != 0, text[place - 10 : place + 1]
        line = json.loads(result.stdout)
        assert not line["identical"]
        assert line["why"]


def test_one_character_anywhere_in_either_text_is_found() -> None:
    from sdscratch.images.metadata.dialects import records_in
    from sdscratch.images.metadata.texts import Texts
    from sdscratch.jobs.verify import text_fault

    with Image.open("a.png") as image:
        whole = {key: str(image.info[key]) for key in ("sdscratch", "parameters")}
    chance = Random(7)
    for key in [*["sdscratch"] * 200, *["parameters"] * 200]:
        texts, place = dict(whole), chance.randrange(len(whole[key]))
        other = chance.choice([each for each in 'aZ07,:."{ ' if each != whole[key][place]])
        texts[key] = whole[key][:place] + other + whole[key][place + 1 :]
        try:
            found = records_in(Texts(png=texts))
        except SdscratchError:  # it is no record any more, which is said
            continue
        told = found.record is None or text_fault(found.record, found.texts) is not None
        assert told, texts[key][max(place - 9, 0) : place + 9]


def test_one_level_of_any_pixel_is_found() -> None:
    from sdscratch.images.compare import compare

    with Image.open("a.png") as image:
        whole = np.asarray(image.convert("RGB"))
    chance = Random(8)
    for _ in range(200):
        levels = whole.copy()
        y, x, channel = (chance.randrange(side) for side in levels.shape)
        levels[y, x, channel] ^= 1
        likeness = compare(Image.fromarray(levels), Image.fromarray(whole))
        assert not likeness.identical
        assert f"at {x}, {y}" in str(likeness)


@pytest.mark.parametrize(
    "word", ["red:1.2", "Seed: ", "Steps: ", "Model: ", "Negative prompt: ", "Version: "]
)
def test_every_word_of_the_infotext_counts(word: str) -> None:
    from sdscratch.jobs.verify import text_fault

    found = read_records("a.png")
    assert found.record is not None
    assert text_fault(found.record, found.texts) is None

    def change(image: object, texts: dict[str, str]) -> None:
        text = texts["parameters"]
        place = text.index(word) + len(word)
        texts["parameters"] = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]

    changed = read_records(copied("infotext.png", change))
    assert changed.record == found.record
    assert text_fault(changed.record, changed.texts) is not None


def test_a_record_of_another_version_is_held_to_what_both_texts_say() -> None:
    from dataclasses import replace

    from sdscratch.images.metadata.texts import Texts
    from sdscratch.jobs.verify import text_fault

    found = read_records("a.png").record
    assert found is not None
    old = replace(found, sdscratch="0.0.9")
    said = "a dög, (red:1.2)\nNegative prompt: bad\nSteps: 2, Sampler: DDPM, CFG scale: 7.5, Seed: {}"
    texts = [Texts({"sdscratch": old.to_json(), "parameters": said.format(seed)}) for seed in (5, 6)]
    assert text_fault(old, texts[0]) is None
    assert text_fault(old, texts[1]) == "its record and its infotext do not agree on Seed"


def test_a_jpeg_that_was_painted_on_is_found() -> None:
    with Image.open("a.jpg") as image:
        exif, copy = image.info["exif"], image.copy()
    pixels = np.asarray(copy).copy()
    pixels[:32] = 255 - pixels[:32]
    Image.fromarray(pixels).save("painted.jpg", exif=exif, quality=95)
    (line,) = verified("painted.jpg", code=1)
    assert line["psnr"] < 30
    record = read_records("a.jpg").record
    assert record is not None
    alone = exif_data(record.to_json(), None)  # as of a very long prompt
    copy.save("alone.jpg", exif=alone, quality=98, subsampling=0)
    (line,) = verified("alone.jpg")
    assert line["psnr"] >= 30
    assert "30 pass" in line["why"]


def test_what_cannot_be_proven_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient().save("bare.png")
    info = PngInfo()
    info.add_text("parameters", "a\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64")
    gradient().save("theirs.png", pnginfo=info)
    assert "does not say how it was made" in verified("bare.png", code=3)[0]["why"]
    assert "no record of sdscratch" in verified("theirs.png", code=1)[0]["why"]
    assert [line["identical"] for line in verified("a.png", "bare.png", code=1)] == [True, False]
    Path("empty").mkdir(exist_ok=True)
    monkeypatch.chdir("empty")
    assert "is not here" in verified("../a.png", code=3)[0]["why"]
    assert verified("../a.png", "--look-in", "../weights")[0]["identical"]


def test_the_threads_of_the_record_are_used_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    used: list[int] = []
    real = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda count: (used.append(count), real(count)))
    record = read_records("a.png").record
    assert record is not None
    before = torch.get_num_threads()
    verified("a.png")
    assert used == [record.threads, before]
    monkeypatch.setenv("WORLD_SIZE", "2")
    verified("a.png")
    assert used == [record.threads, before]
