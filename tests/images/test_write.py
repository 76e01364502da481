from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdscratch.errors import ImageError, SdscratchError, UsageError
from sdscratch.images import Record, Records, parse_infotext, read_records, save_picture
from support.pictures import gradient, png, png_chunk, record

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".PNG"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_what_pillow_reads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_picture(gradient(), path, record())
    with Image.open(path) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP"}.get(suffix.lower(), "JPEG")
        assert (image.mode, image.size) == ("RGB", gradient().size)
        difference = max(abs(a - b) for a, b in zip(image.tobytes(), gradient().tobytes(), strict=True))
        assert difference <= (0 if suffix.lower() == ".png" else 16)
    assert list(tmp_path.iterdir()) == [path]


def test_png_holds_both_records_where_others_look(tmp_path: Path) -> None:
    save_picture(gradient(), tmp_path / "a.png", record(prompt="ein Apfel"))
    save_picture(gradient(), tmp_path / "b.png", record(prompt="りんご"))
    for name, made in (("a", record(prompt="ein Apfel")), ("b", record(prompt="りんご"))):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.info == {"parameters": made.infotext(), "sdscratch": made.to_json()}
    assert b"tEXtparameters" in (tmp_path / "a.png").read_bytes()
    assert b"iTXtparameters" in (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_jpeg_and_webp_hold_both_records_in_exif(tmp_path: Path, suffix: str) -> None:
    made = record(prompt="りんご 🍎")
    save_picture(gradient(), tmp_path / f"a{suffix}", made)
    with Image.open(tmp_path / f"a{suffix}") as image:
        exif = image.getexif()
    assert exif[0x010E] == made.to_json()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == made.infotext()


@settings(deadline=None, max_examples=60)
@given(prompt=st.text(st.characters(), max_size=80), negative=st.text(max_size=20))
def test_the_record_comes_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: str
) -> None:
    made = record(prompt=prompt, negative_prompt=negative)
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path_factory.getbasetemp() / f"a{suffix}"
        save_picture(gradient(8, 8), path, made, overwrite=True)
        assert read_records(path) == Records(record=made)


def test_very_long_prompts_fit_where_they_can(tmp_path: Path) -> None:
    medium, long = record(prompt="apple " * 4000), record(prompt="りんご" * 40_000)
    for suffix in (".png", ".webp"):
        save_picture(gradient(), tmp_path / f"long{suffix}", long)
        assert read_records(tmp_path / f"long{suffix}").record == long
    save_picture(gradient(), tmp_path / "medium.jpg", medium)
    assert read_records(tmp_path / "medium.jpg").record == medium
    with Image.open(tmp_path / "medium.jpg") as image:
        assert 0x9286 not in image.getexif().get_ifd(0x8769)
    save_picture(gradient(), tmp_path / "long.jpg", long)
    assert read_records(tmp_path / "long.jpg") == Records()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    remembering = gradient()
    remembering.info = {"dpi": (300, 300), "icc_profile": b"x", "exif": b"Exif\0\0", "comment": b"x"}
    save_picture(gradient(), tmp_path / f"a{suffix}", record())
    save_picture(remembering, tmp_path / f"b{suffix}", record())
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_picture_without_record_says_nothing(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp"):
        save_picture(gradient(), tmp_path / f"a{suffix}")
        assert read_records(tmp_path / f"a{suffix}") == Records()


def test_a_stream_gets_png(tmp_path: Path) -> None:
    stream = io.BytesIO()
    save_picture(gradient(), stream, record())
    save_picture(gradient(), tmp_path / "a.png", record())
    assert stream.getvalue() == (tmp_path / "a.png").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_a_stream_is_one_sentence() -> None:
    program = (
        "import sys; from PIL import Image; from sdscratch.images import save_picture\n"
        "try:\n    save_picture(Image.new('RGB', (8, 8)), sys.stdout.buffer)\n"
        "except Exception as error:\n    sys.exit(repr(error))\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1  # 120 if Python failed once more at its end
    assert done.stderr.decode().count("\n") == 1
    assert "SdscratchError('cannot write to standard output: no space is left" in done.stderr.decode()


def test_a_reader_that_has_ended_is_one_sentence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stream, pytest.raises(SdscratchError, match="has ended"):
        save_picture(gradient(), stream)


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_full_disk_or_ctrl_c_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SdscratchError, match=f"cannot write .*a{suffix}: no space is left"):
        save_picture(gradient(), path, record())
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_picture(gradient(), path, record())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits")
def test_a_disk_that_fills_up_midway_leaves_nothing(tmp_path: Path) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(SdscratchError, match=r"cannot write .*: File too large"):
            save_picture(gradient(200, 200), tmp_path / "a.png", record())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_names_and_formats_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_picture(gradient(), tmp_path / "a.png")
    with pytest.raises(UsageError, match="overwrite"):
        save_picture(gradient(), tmp_path / "a.png")
    save_picture(gradient(), tmp_path / "a.png", overwrite=True)
    for name in ("a", "a.gif", "a.png.txt", ".png"):
        with pytest.raises(UsageError, match="suffix"):
            save_picture(gradient(), tmp_path / name)
    with pytest.raises(SdscratchError, match="20000x1 pixels as WEBP"):
        save_picture(Image.new("RGB", (20_000, 1)), tmp_path / "a.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# Reading records


def web_ui_png(text: str, kind: bytes = b"tEXt") -> bytes:
    body = {
        b"tEXt": b"parameters\0" + text.encode("latin-1", "replace"),
        b"zTXt": b"parameters\0\0" + zlib.compress(text.encode("latin-1", "replace")),
        b"iTXt": b"parameters\0\0\0\0\0" + text.encode(),
    }[kind]
    return png(1, 1, 8, 0, b"\0\0", png_chunk(kind, body))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_the_web_uis_text_is_read_where_we_have_none_of_our_own(tmp_path: Path, kind: bytes) -> None:
    text = record().infotext()
    (tmp_path / "a.png").write_bytes(web_ui_png(text, kind))
    assert read_records(tmp_path / "a.png") == Records(infotext=parse_infotext(text))


@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le"])
def test_a_user_comment_of_either_byte_order_is_read(tmp_path: Path, code: str) -> None:
    text = record(prompt="りんご").infotext()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(code)
    exif[0x010E] = "a description by a camera"
    gradient().save(tmp_path / "a.jpg", exif=exif)
    assert read_records(tmp_path / "a.jpg") == Records(infotext=parse_infotext(text))


def test_a_user_comment_in_ascii_is_read_and_one_without_encoding_is_not(tmp_path: Path) -> None:
    text = b"hello\nSteps: 1, Seed: 2, Size: 8x8"
    for comment, expected in ((b"ASCII\0\0\0" + text, "hello"), (bytes(8) + b"hello", None), (b"", None)):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = comment
        gradient().save(tmp_path / "a.jpg", exif=exif)
        found = read_records(tmp_path / "a.jpg").infotext
        assert (found.prompt if found else None) == expected


def test_a_damaged_record_is_refused_with_the_files_name_and_a_bomb_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 8, 0, b"\0\0", png_chunk(b"tEXt", b'sdscratch\0{"sdscratch":"9","mode":"?"}')))
    with pytest.raises(ImageError, match=r"a\.png: its sdscratch record cannot be read"):
        read_records(path)
    path.write_bytes(web_ui_png("x" * 50_000_000, b"zTXt"))
    found = read_records(path)
    assert (found.tool, found.texts.left_out) == (None, ("a text (parameters) of more than 1 MiB unpacked",))


def test_records_do_not_say_where_or_when(tmp_path: Path) -> None:
    made = record()
    save_picture(gradient(), tmp_path / "a.png", made)
    assert str(tmp_path).encode() not in (tmp_path / "a.png").read_bytes()
    assert Record.from_json(made.to_json()).sdscratch == made.sdscratch
