"""What users reported: each kind of fault by its right value, as the command line shows it."""

from __future__ import annotations

import codecs
import json
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdscratch.checkpoints.model import open_model
from sdscratch.options import large_init_notice
from support.checkpoints import ldm_tensors, self_contained, write_ldm
from support.cli import sdscratch
from support.pictures import gradient

FAST = ["--steps", "1", "--size", "64x64", "--seed", "1", "-q", "--overwrite"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + b"a dog\n",
        b"a dog\r\n",
        codecs.BOM_UTF16_LE + "a dog\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a dog\n".encode("utf-16-be"),
    ],
)
def test_a_byte_order_mark_changes_no_picture_and_no_token(tiny_model: Path, data: bytes) -> None:
    plain = sdscratch("txt2img", "a dog", "-m", tiny_model, *FAST, "-o", "a.png")
    piped = sdscratch("txt2img", "-", "-m", tiny_model, *FAST, "-o", "b.png", stdin=data)
    assert (plain.code, piped.code) == (0, 0), piped.stderr
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    tokens = sdscratch(
        "tokens",
        "-",
        "-m",
        tiny_model,
        "--prompt-syntax",
        "plain",
        "--json",
        stdin=data + data[2:] if data[0] == 0xFF else data,
    )
    ids = [json.loads(line)["ids"] for line in tokens.lines]
    assert (
        ids[0]
        == json.loads(
            sdscratch("tokens", "a dog", "-m", tiny_model, "--prompt-syntax", "plain", "--json").stdout
        )["ids"]
    )


def test_text_that_is_none_of_these_is_refused_by_name(tiny_model: Path) -> None:
    for data, said in (("a dog".encode("utf-16-le"), "UTF-16 without"), ("a dog".encode("utf-32"), "UTF-32")):
        result = sdscratch("txt2img", "-", "-m", tiny_model, *FAST, stdin=data)
        assert result.code == 2
        assert said in result.stderr


def test_an_empty_pipe_is_refused_and_an_empty_line_is_a_prompt(tiny_model: Path) -> None:
    result = sdscratch("txt2img", "-", "-m", tiny_model, *FAST, "-o", "a.png")
    assert (result.code, Path("a.png").exists()) == (2, False)
    assert "stdin is empty" in result.stderr
    assert sdscratch("txt2img", "-", "-m", tiny_model, *FAST, "-o", "a.png", stdin=b"\n").code == 0


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_options_in_toml_may_begin_with_a_mark(coding: str) -> None:
    Path("a.toml").write_bytes('data = "nowhere"\noutput = "run"\nmax_train_steps = 1\n'.encode(coding))
    result = sdscratch("train", "lora", "--config", "a.toml")
    assert "nowhere" in result.stderr
    assert "TOML" not in result.stderr


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG with a chunk before its pixels."""
    gradient().save("plain.png")
    body = Path("plain.png").read_bytes()
    at = body.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return body[:at] + chunk + body[at:]


@pytest.mark.parametrize(
    ("kind", "start", "named"),
    [
        (b"zTXt", b"workflow\0\0", "a text (workflow)"),
        (b"iTXt", b"workflow\0\1\0\0\0", "a text (workflow)"),
        (b"iCCP", b"profile\0\0", "its colour profile"),
    ],
)
def test_large_text_beside_sound_pixels_is_left_out_and_told(kind: bytes, start: bytes, named: str) -> None:
    Path("large.png").write_bytes(with_chunk(kind, start + zlib.compress(b"x" * (2 << 20))))
    result = sdscratch("info", "large.png", "--json")
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["left_out"] == [f"{named} of more than 1 MiB unpacked"]
    assert named in " ".join(sdscratch("info", "large.png").stdout.decode().split())
    from sdscratch.images import read_picture

    assert read_picture("large.png").tobytes() == gradient().tobytes()


HOSTILE = "a cat\x1b[2J\x1b]0;title\x07\x1b]52;c;ZWNobw==\x07\u202e\n" + (
    "Steps: 20, Sampler: E\x1b[5m, Seed: 1\x9b, CFG\x1b scale: 7"
)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "phone.jpg"])
def test_nothing_that_a_picture_says_acts_on_the_terminal(name: str) -> None:
    if name.endswith(".png"):
        info = PngInfo()
        info.add_text("parameters", HOSTILE)
        Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    else:
        exif = Image.Exif()
        text = HOSTILE.partition("\n")[0] if name.startswith("phone") else HOSTILE
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
        Image.new("RGB", (8, 8)).save(name, exif=exif)
    for options in ([], ["--json"]):
        result = sdscratch("info", name, *options)
        assert result.code == 0
        shown = result.stdout.decode()
        assert "a cat" in " ".join(shown.split())
        assert all(line.isprintable() for line in shown.splitlines())


def test_hostile_names_are_escaped_in_errors() -> None:
    for arguments in (["info", "\x1b[2Jx.png"], ["txt2img", "x", "-o", "\x1b[2J.xyz"], ["info", "\u202ex"]):
        result = sdscratch(*arguments)
        assert result.code != 0
        assert result.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize("tag", ["<LoRA:nosuch:1>", "<lyco:nosuch:1>", "<LYCO:nosuch>", "<lora:nosuch:1>"])
def test_loras_are_asked_for_in_any_case_and_by_lyco(tiny_model: Path, tag: str) -> None:
    result = sdscratch("txt2img", f"a dog {tag}", "-m", tiny_model, *FAST, "-o", "a.png")
    assert result.code == 3
    assert "there is no LoRA nosuch" in result.stderr


@pytest.mark.parametrize("tag", ["<hypernet:x:1>", "<wildcard:animals>", "<e:x>"])
def test_other_tags_are_said(tiny_model: Path, tag: str) -> None:
    loud = [option for option in FAST if option != "-q"]
    result = sdscratch("txt2img", f"a dog {tag}", "-m", tiny_model, *loud, "-o", "a.png")
    assert result.code == 0
    assert f"warning: the tag {tag} is none that is known here" in result.stderr
    assert (
        "warning" not in sdscratch("txt2img", "a < dog > b: c", "-m", tiny_model, *loud, "-o", "a.png").stderr
    )


def test_values_that_are_not_numbers_are_told_when_copied() -> None:
    tensors = ldm_tensors()
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = float("nan")
    write_ldm(Path("nan.safetensors"), tensors, self_contained())
    result = sdscratch("convert-weights", "nan.safetensors", "out.safetensors", "--json")
    assert result.code == 0
    assert f"nan.safetensors holds NaN or infinity in {name}" in result.stderr
    assert json.loads(result.stdout)["not_finite"] == [name]
    out = open_model("out.safetensors")
    assert sum(int(out.read(weight).isnan().sum()) for weight in out.stored) == 1
    write_ldm(Path("fine.safetensors"), ldm_tensors(), self_contained())
    result = sdscratch("convert-weights", "fine.safetensors", "fine2.safetensors", "--json")
    assert "NaN" not in result.stderr
    assert json.loads(result.stdout)["not_finite"] == []


def test_halves_that_only_add_up_to_infinity_are_finite() -> None:
    from sdscratch.checkpoints.convert import _is_finite

    assert _is_finite(torch.full((9,), 60000.0).half())
    assert not _is_finite(torch.tensor([1.0, float("inf"), float("-inf")]))


@pytest.mark.parametrize(
    ("size", "said"), [((4000, 3000), True), ((1024, 1024), False), ((1920, 1080), True)]
)
def test_a_large_picture_at_its_own_size_is_told_with_an_estimate(size: tuple[int, int], said: bool) -> None:
    notice = large_init_notice(size, (512, 512))
    assert (notice is not None) is said
    if notice is not None:
        assert f"{size[0]}x{size[1]}" in notice
        assert "times the work of 512x512" in notice
        assert "--size" in notice


def test_the_notice_is_given_with_a_large_picture_and_not_with_a_size(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdscratch.options.sizes.LARGE_INIT", 100 * 100)
    gradient(520, 520).save("init.png")
    options = ["-m", tiny_model, "--steps", "1", "--strength", "0", "--overwrite", "-o", "a.png"]
    assert "megapixels" in sdscratch("img2img", "init.png", "a dog", *options).stderr
    assert "megapixels" not in sdscratch("img2img", "init.png", "a dog", "--size", "128x128", *options).stderr
