"""A record beside a picture that says nothing itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdscratch.errors import UsageError
from sdscratch.images import read_records, save_picture, write_sidecar
from support.pictures import gradient, record


def test_the_record_beside_a_picture_is_read_where_the_picture_says_nothing(tmp_path: Path) -> None:
    save_picture(gradient(), tmp_path / "a.png")
    assert read_records(tmp_path / "a.png").tool is None
    write_sidecar(tmp_path / "a.png", record(seed=3))
    found = read_records(tmp_path / "a.png")
    assert (found.tool, found.record) == ("sdscratch", record(seed=3))
    save_picture(gradient(), tmp_path / "a.jpg", record(seed=4))
    assert read_records(tmp_path / "a.jpg").record == record(seed=4)
    with pytest.raises(UsageError, match="exists already"):
        write_sidecar(tmp_path / "a.png", record())


def test_the_web_uis_text_file_is_read_and_a_caption_is_none(tmp_path: Path) -> None:
    save_picture(gradient(), tmp_path / "a.png")
    beside = tmp_path / "a.txt"
    beside.write_text("a fox, outdoors: night, time: 10")
    assert read_records(tmp_path / "a.png").tool is None
    beside.write_text("a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5")
    found = read_records(tmp_path / "a.png")
    assert found.tool == "a1111"
    assert found.infotext is not None
    assert found.infotext.prompt == "a fox"


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_texts_beside_a_picture_may_begin_with_a_mark_and_have_windows_line_ends(
    tmp_path: Path, coding: str
) -> None:
    save_picture(gradient(), tmp_path / "a.png")
    text = "a fox\r\nNegative prompt: bad\r\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode(coding))
    found = read_records(tmp_path / "a.png").infotext
    assert found is not None
    assert (found.prompt, found.negative_prompt, found.parameters["Seed"]) == ("a fox", "bad", "5")
    (tmp_path / "a.json").write_bytes(f"{record(seed=9).to_json()}\r\n".encode(coding))
    assert read_records(tmp_path / "a.png").record == record(seed=9)
