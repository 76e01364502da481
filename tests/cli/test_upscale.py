"""`upscale`: by a file, a filter, or drawn over in windows; what it writes, says and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdscratch.generation.journal import WindowJournal
from sdscratch.images import read_picture, read_records
from support.cli import sdscratch
from support.controlnets import TINY_CONTROL, write_control
from support.upscalers import TINY_COMPACT, TINY_RRDB, random_tensors, write_pth


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (tmp_path / "upscalers").mkdir()
        write_pth(tmp_path / "upscalers" / "4x-tiny.pth", random_tensors(TINY_RRDB, "BSRGAN"))
        write_pth(tmp_path / "compact.pth", random_tensors(TINY_COMPACT, "compact", "params."))
        (tmp_path / "tiny.safetensors").symlink_to(tiny_model)
        Image.effect_noise((24, 16), 60).convert("RGB").save(tmp_path / "owl.png")
        yield tmp_path


def test_a_picture_lands_beside_itself_under_its_scale(folder: Path) -> None:
    done = sdscratch("upscale", "owl.png", "--upscaler", "4x-tiny", "-q")
    assert (done.code, done.lines) == (0, ["owl-4x.png"])
    assert read_picture("owl-4x.png").size == (96, 64)
    assert (
        Image.open("owl-4x.png")
        .text["extras"]
        .startswith(  # type: ignore[attr-defined]
            "Postprocess upscale by: 4, Postprocess upscaler: 4x-tiny, Postprocess upscaler hash: "
        )
    )
    again = sdscratch("upscale", "owl.png", "--upscaler", "4x-tiny", "-q")
    assert again.code == 2
    assert "owl-4x.png" in again.stderr
    assert sdscratch("upscale", "owl.png", "--upscaler", "compact.pth", "--overwrite", "-q").code == 0


def test_another_scale_is_reached_through_the_networks_own(folder: Path) -> None:
    for scale, size in ((3, (72, 48)), (5, (120, 80)), (1, (24, 16))):
        out = f"{scale}.png"
        assert sdscratch("upscale", "owl.png", out, "--upscaler", "4x-tiny", "--scale", scale, "-q").code == 0
        assert read_picture(out).size == size
    done = sdscratch(
        "upscale", "owl.png", "-o", "f.png", "--upscaler", "Nearest", "--scale", 2, "--json", "-q"
    )
    facts = json.loads(done.stdout)
    assert (facts["path"], facts["size"], facts["upscaler"]) == ("f.png", [48, 32], {"name": "nearest"})
    doubled = np.repeat(np.repeat(np.asarray(read_picture("owl.png")), 2, 0), 2, 1)
    assert np.array_equal(np.asarray(read_picture("f.png")), doubled)


REDRAW = (
    *("--redraw", "leaves", "-m", "tiny.safetensors", "--device", "cpu", "--dtype", "float32"),
    *("--steps", 4, "--sampler", "euler", "--window", 64, "--strength", 0.5),
)


@pytest.mark.parametrize("upscaler", [(), ("--upscaler", "4x-tiny"), ("--upscaler", "bicubic")])
def test_what_was_redrawn_is_replayed_with_its_upscaler(folder: Path, upscaler: tuple[str, ...]) -> None:
    """And drawn by hand, and by a plan: all of them the very picture."""
    (folder / "weights").mkdir()
    (folder / "tiny.safetensors").rename("weights/tiny.safetensors")
    words = [word if word != "tiny.safetensors" else "tiny" for word in REDRAW]
    assert sdscratch("upscale", "owl.png", "large.png", *words, *upscaler, "-q").code == 0
    done = sdscratch("replay", "large.png", "--json", "-q")
    (line,) = map(json.loads, done.lines)
    assert (line["identical"], line["differs"], line["unmatched"]) == (True, [], [])
    assert Path(line["path"]).read_bytes() == Path("large.png").read_bytes()
    assert sdscratch("verify", "large.png", "-q").code == 0
    assert sdscratch("replay", "large.png", "--plan", "again.jsonl", "-q").code == 0
    device = ("--device", "cpu", "--dtype", "float32")
    (again,) = sdscratch("run", "again.jsonl", *device, "-q").lines
    assert np.array_equal(np.asarray(read_picture(again)), np.asarray(read_picture("large.png")))
    by = ("--init-upscaler", upscaler[1]) if upscaler else ()
    sized = ("--size", "96x64", "--fit", "stretch", "--seed", 0, "-o", "hand.png", "-q")
    hand = sdscratch("img2img", "owl.png", *words[1:], *by, *sized)
    assert hand.code == 0, hand.stderr
    assert Path("hand.png").read_bytes() == Path("large.png").read_bytes()


def test_redrawing_is_image_to_image_in_windows(folder: Path) -> None:
    done = sdscratch("upscale", "owl.png", "large.png", *REDRAW)
    assert done.code == 0
    assert "2 windows of 64 pixels × 2 estimates: 4 in all" in done.stderr
    assert [each.name for each in folder.glob("*.partial")] == []
    record = read_records("large.png").record
    assert record is not None
    assert record.options.window == 64
    assert (record.mode, record.options.seed, record.options.strength) == ("img2img", 0, 0.5)
    words = [*REDRAW[2:], "--fit", "stretch"]
    by_hand = sdscratch(
        "img2img", "owl.png", "leaves", *words, "--size", "96x64", "--seed", 0, "-o", "hand.png", "-q"
    )
    assert by_hand.code == 0
    assert Path("hand.png").read_bytes() == Path("large.png").read_bytes()


def test_a_tile_controlnet_keeps_windows_to_what_is_there(folder: Path) -> None:
    write_control(Path("tile.safetensors"), TINY_CONTROL)
    tile = ("--control", "tile.safetensors,image=owl.png,weight=4")
    for name, more in (("plain.png", ()), ("tiled.png", tile)):
        assert sdscratch("upscale", "owl.png", name, *REDRAW, *more, "-q").code == 0
    assert Path("plain.png").read_bytes() != Path("tiled.png").read_bytes()
    words = [*REDRAW[2:], "--fit", "stretch", *tile]
    by_hand = sdscratch(
        "img2img", "owl.png", "leaves", *words, "--size", "96x64", "--seed", 0, "-o", "hand.png", "-q"
    )
    assert by_hand.code == 0
    assert Path("hand.png").read_bytes() == Path("tiled.png").read_bytes()
    refused = sdscratch("upscale", "owl.png", "x.png", *REDRAW, "--control", "none,image=owl.png")
    assert refused.code == 3
    assert not Path("x.png").exists()


def test_a_network_comes_before_the_model_and_is_recorded(folder: Path) -> None:
    assert sdscratch("upscale", "owl.png", "a.png", "--upscaler", "4x-tiny", *REDRAW, "-q").code == 0
    record = read_records("a.png").record
    assert record is not None
    assert record.upscaler is not None
    assert record.upscaler.name == "4x-tiny"
    assert record.init_hash is not None


def test_a_redrawing_that_was_stopped_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sdscratch("upscale", "owl.png", "whole.png", *REDRAW, "-q").code == 0
    write = WindowJournal._write

    def stopped(self: WindowJournal, digest: bytes, estimate: object) -> None:
        write(self, digest, estimate)  # type: ignore[arg-type]
        if self.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(WindowJournal, "_write", stopped)
    assert sdscratch("upscale", "owl.png", "large.png", *REDRAW, "-q").code == 130
    assert not Path("large.png").exists()
    assert Path("large.png.partial").exists()
    monkeypatch.setattr(WindowJournal, "_write", write)
    done = sdscratch("upscale", "owl.png", "large.png", *REDRAW)
    assert done.code == 0
    assert "3 windows were done before" in done.stderr
    assert Path("large.png").read_bytes() == Path("whole.png").read_bytes()
    assert not Path("large.png.partial").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "nothing says how to enlarge"),
        (["--upscaler", "nowhere"], 3, "there is no upscaler nowhere"),
        (["--upscaler", "tiny.safetensors"], 3, "no upscaler of the ESRGAN family"),
        (["--upscaler", "latent"], 2, "between two passes"),
        (["--upscaler", "lanczos", "--steps", 5], 2, "--steps is of redrawing"),
        (["--upscaler", "lanczos", "--scale", 0.5], 2, "--scale is 0.5"),
        (["--upscaler", "lanczos", "-o", "a.bmp"], 2, "a.bmp"),
        (["--redraw", "leaves", "-m", "nothing.safetensors"], 3, "no model nothing.safetensors"),
        (["--redraw", "leaves", "-m", "tiny.safetensors", "--scale", 1], 2, "at least 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(
    words: list[str], code: int, said: str, folder: Path
) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    done = sdscratch("upscale", "owl.png", *words)
    assert done.code == code
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error:" in line]) == 1
    assert done.stdout == b""
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_missing_picture_is_said(folder: Path) -> None:
    assert sdscratch("upscale", "none.png", "--upscaler", "lanczos").code == 4
