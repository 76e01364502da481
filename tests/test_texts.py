"""Text that comes in: UTF-8 with and without a mark, UTF-16 by its mark, anything else by name."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.texts import NotText, decode, read_text, utf_8_lines, without_end

MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@pytest.mark.parametrize("coding", MARKS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")))
def test_every_coding_with_its_mark_is_the_same_text(coding: str, text: str) -> None:
    assert decode(MARKS[coding] + text.encode(coding), "here") == text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a fox".encode("utf-32"), "the text here is UTF-32; convert it to UTF-8"),
        ("a fox".encode("utf-16-le"), "the text here is UTF-16 without a byte-order mark"),
        ("a fox".encode("utf-16-be"), "the text here is UTF-16 without a byte-order mark"),
        (codecs.BOM_UTF16_LE + b"a", "the UTF-16 here is broken at byte"),
        (b"a caf\xe9", "byte 6 here is not UTF-8; convert it to UTF-8"),
        (codecs.BOM_UTF8 + b"a caf\xe9", "byte 9 here is not UTF-8"),
    ],
)
def test_what_is_no_such_text_is_named(data: bytes, said: str) -> None:
    with pytest.raises(NotText) as caught:
        decode(data, "here")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("data", [b"", b"a", b"a\0b", b"\0\0", b"\0\0\0\0"])
def test_a_nul_or_two_make_no_utf_16(data: bytes) -> None:
    assert decode(data, "here") == data.decode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_become_line_feeds(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + f"a{end}b{end}".encode())
    assert read_text(tmp_path / "a.txt") == "a\nb\n"
    assert without_end(f"a{end}") == "a"


@pytest.mark.parametrize("coding", MARKS)
def test_long_files_are_read_in_pieces(tmp_path: Path, coding: str) -> None:
    text = "".join(f"{number} é\n" for number in range(3000))
    (tmp_path / "a.txt").write_bytes(MARKS[coding] + text.encode(coding))
    with utf_8_lines(tmp_path / "a.txt") as file:
        assert [line.decode() for line in file] == text.splitlines(keepends=True)
