"""`--control` and `info --preprocess` on the command line: pictures, plans, records, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdscratch.addons.control_requests import ControlRequest, parse_control
from sdscratch.errors import UsageError
from sdscratch.images import parse_infotext, picture_hash, read_picture, read_records
from support.cli import Result, sdscratch
from support.controlnets import TINY_ADAPTER, TINY_CONTROL, hint, write_control
from support.ip_adapters import write_encoder, write_prompt

Draw = Callable[..., Result]
SMALL = ["--width", 64, "--height", 64, "--steps", 2, "--seed", 5, "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: a ControlNet in ./controls, an adapter in the user's folder, and hints."""
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    for place in ("controls", "XDG_DATA_HOME/sdscratch/controls"):
        Path(place).mkdir(parents=True)
    write_control(Path("controls/edges.safetensors"), TINY_CONTROL)
    write_control(Path("XDG_DATA_HOME/sdscratch/controls/sketch.pth"), TINY_ADAPTER)
    hint().save("a,b.png")
    hint(seed=3).save("c.png")
    return tmp_path


@pytest.fixture
def draw(tiny_model: Path) -> Draw:
    """Draw "a dog" in two steps; what is given comes on top."""

    def run(*arguments: object) -> Result:
        return sdscratch("txt2img", "a dog", "-m", tiny_model, *SMALL, *arguments)

    return run


def pixels(name: str | Path) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"))


def test_a_control_is_drawn_with_and_recorded(draw: Draw, tiny_model: Path) -> None:
    edges = "edges,image=a,,b.png,weight=0.8,end=0.5,mode=prompt,preprocess=canny:20:60"
    result = draw("--control", edges, "--control", "sketch,image=c.png", "-o", "x.png", "--json")
    assert result.code == 0, result.stderr
    told = json.loads(result.lines[0])["controls"]
    records = read_records(Path("x.png"))
    assert records.record is not None
    assert [each.to_record() for each in records.record.controls or ()] == told
    assert [each["image"] for each in told] == [picture_hash(read_picture(p)) for p in ("a,b.png", "c.png")]
    assert told[0] | {"name": "edges", "weight": 0.8, "end": 0.5, "mode": "prompt"} == told[0]
    parameters = parse_infotext(records.record.infotext()).parameters
    text = parameters["ControlNet 0"]
    assert text.startswith("Module: canny, Model: edges [")
    assert "Weight: 0.8" in text
    assert text.endswith("Control Mode: My prompt is more important")
    assert "ControlNet 1" in parameters

    replayed = sdscratch("replay", "x.png", "-o", "again/", "--json", "--look-in", tiny_model.parent)
    assert replayed.code == 0, replayed.stderr
    assert json.loads(replayed.lines[0])["identical"], replayed.lines

    assert draw("-o", "plain.png").code == 0
    assert np.abs(pixels("x.png").astype(int) - pixels("plain.png")).max() > 1
    plan = {"prompt": "a dog", "control": [edges, "sketch,image=c.png"]}
    lines = [plan, {"prompt": "a dog", "control": "sketch,image=c.png"}]
    Path("plan.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ran = sdscratch("run", "plan.jsonl", "-m", tiny_model, *SMALL, "-o", "out/", "--json")
    assert ran.code == 0, ran.stderr
    paths = [json.loads(line)["path"] for line in ran.lines]
    assert np.array_equal(pixels(paths[0]), pixels("x.png"))
    assert not np.array_equal(pixels(paths[1]), pixels(paths[0]))
    again = sdscratch("run", "plan.jsonl", "-m", tiny_model, *SMALL, "-o", "out/", "--json")
    assert [json.loads(line)["done"] for line in again.lines] == [True, True]


@pytest.mark.parametrize(
    ("control", "code", "says"),
    [
        ("edges", 2, "the control edges has no image="),
        (",image=c.png", 2, "names no file"),
        ("edges,image=c.png,wait=1", 2, "says 'wait=1', but may say image=, weight="),
        ("edges,image=a,b.png", 2, "a comma in a path is written twice"),
        ("edges,image=c.png,weight=x", 2, "weight=x, which is no number"),
        ("edges,image=c.png,weight=nan", 2, "is no number; 1 is full strength"),
        ("edges,image=c.png,start=0.8,end=0.2", 2, "start comes first"),
        ("edges,image=c.png,mode=hard", 2, "must have one of balanced, prompt, control"),
        ("edges,image=c.png,preprocess=openpose", 2, "made by networks that sdscratch does not have"),
        ("edges,image=missing.png", 4, "there is no picture missing.png"),
        ("edges,image=controls/edges.safetensors", 4, "a safetensors file"),
        ("nowhere,image=c.png", 3, "there is no ControlNet or adapter nowhere"),
        ("c.png,image=c.png", 3, "c.png"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    control: str, code: int, says: str, draw: Draw
) -> None:
    result = draw("--control", control, "-o", "x.png")
    assert (result.code, result.stdout) == (code, b"")
    assert says in " ".join(result.stderr.split())
    assert not Path("x.png").exists()


def test_a_request_is_read() -> None:
    told = parse_control("a,,b=c.pth,image=x=y,,z.png,start=0.25")
    assert told == ControlRequest("a,b=c.pth", "x=y,z.png", start=0.25)
    with pytest.raises(UsageError, match="twice"):
        parse_control("a,image=x,image=y")


def test_info_tells_controls_apart_and_whether_they_fit(tiny_model: Path) -> None:
    write_control(Path("folder"), TINY_CONTROL, layout="folder")
    for name, what in (
        ("controls/edges.safetensors", "a ControlNet"),
        ("folder", "a ControlNet, in a diffusers folder"),
        ("XDG_DATA_HOME/sdscratch/controls/sketch.pth", "a T2I-Adapter"),
    ):
        result = sdscratch("info", name, "--json", "--against", tiny_model)
        assert result.code == 0, result.stderr
        facts = json.loads(result.lines[0])
        assert (facts["what"], facts["misfits"], facts["control"]["hint_channels"]) == (what, [], 3)
        assert sdscratch("info", name).code == 0
    misfits = json.loads(sdscratch("info", "folder", "--json", "--against", "default").lines[0])["misfits"]
    assert len(misfits) == 1
    assert "another kind of model" in misfits[0]


def test_a_picture_in_the_prompt_needs_its_encoder_and_is_drawn_again(draw: Draw, tiny_model: Path) -> None:
    write_prompt(Path("controls/like.safetensors"), "plus")
    refused = draw("--control", "like,image=c.png", "-o", "x.png")
    assert refused.code == 3
    assert "its image encoder is not there" in refused.stderr
    assert not Path("x.png").exists()
    facts = json.loads(sdscratch("info", "controls/like.safetensors", "--json").lines[0])
    assert (facts["what"], facts["control"]["form"], facts["control"]["tokens"]) == (
        "an IP-Adapter",
        "plus",
        5,
    )

    encoder = write_encoder(Path("elsewhere/vision"))
    assert "image encoder" in sdscratch("info", encoder / "model.safetensors").stdout.decode()
    drawn = draw("--control", f"like,image=c.png,encoder={encoder}", "-o", "x.png", "--json")
    assert drawn.code == 0, drawn.stderr
    (told,) = json.loads(drawn.lines[0])["controls"]
    assert told["encoder"]
    again = sdscratch(
        *("replay", "x.png", "-o", "again/", "--json"),
        *("--look-in", tiny_model.parent, "--look-in", "elsewhere"),
    )
    assert again.code == 0, again.stderr
    assert json.loads(again.lines[0])["identical"], again.lines


def test_info_writes_a_map() -> None:
    result = sdscratch("info", "--preprocess", "invert", "c.png", "map.png")
    assert (result.code, result.lines) == (0, ["map.png"]), result.stderr
    assert np.array_equal(pixels("map.png"), 255 - pixels("c.png"))
    for arguments, code, says in (
        (("--preprocess", "invert", "c.png", "map.png"), 2, "map.png"),
        (("--preprocess", "invert", "c.png"), 2, "OUT is missing"),
        (("--preprocess", "depth", "c.png", "d.png"), 2, "networks"),
        (("--preprocess", "invert", "missing.png", "d.png"), 4, "there is no picture"),
        (("c.png", "d.png"), 2, "--preprocess alone"),
    ):
        refused = sdscratch("info", *arguments)
        assert refused.code == code
        assert says in refused.stderr
    assert not Path("d.png").exists()
