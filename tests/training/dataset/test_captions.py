"""Captions: from tables and text files of every kind, hostile ones included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.training.dataset.captions import plain_name, read_captions, read_text


def texts(root: Path, table: str, content: str | bytes) -> dict[str, str]:
    return dict(read(root, table, content)[0])


def read(root: Path, table: str, content: str | bytes) -> tuple[dict[str, str], dict[str, str]]:
    path = root / table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    captions = read_captions(root, [table])
    return dict(captions.texts), {each.path: each.reason for each in captions.skipped}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
def test_both_tables_are_read_with_byte_order_marks_and_either_line_end(
    tmp_path: Path, column: str, start: str, end: str
) -> None:
    lines = [json.dumps({"file_name": name, column: text}) for name, text in CAPTIONS.items()]
    assert texts(tmp_path, "metadata.jsonl", start + end.join(lines)) == CAPTIONS
    rows = [f"file_name,{column}", *(f'{name},"{text}"' for name, text in CAPTIONS.items())]
    assert texts(tmp_path, "metadata.csv", start + end.join([*rows, ""])) == CAPTIONS


CAPTIONS = {"a.png": "a red apple", "ä ö.png": "zwei Äpfel, rot", "sub/b.png": "😀"}


def test_the_first_column_that_says_something_counts(tmp_path: Path) -> None:
    rows = "file_name,prompt,text,caption\na.png,third,,second\nb.png,third,first,second\nc.png,,,\n"
    assert texts(tmp_path, "metadata.csv", rows) == {"a.png": "second", "b.png": "first"}


def test_names_are_relative_to_the_table_and_spelt_alike(tmp_path: Path) -> None:
    line = json.dumps({"file_name": "./deep/../e\u0301.png", "text": "x"})
    assert texts(tmp_path, "sub/metadata.jsonl", line) == {"sub/\u00e9.png": "x"}


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "sub/../../a.png", ".."])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    found, skipped = read(tmp_path, "metadata.jsonl", json.dumps({"file_name": name, "text": "x"}))
    assert found == {}
    assert skipped == {"metadata.jsonl, line 1": f"{name} lies outside of the folder"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b'["a.png", "x"]', "it is no JSON object"),
        (b'{"text": "x"}', "it names no picture in file_name"),
        (b'{"file_name": 3, "text": "x"}', "it names no picture in file_name"),
        (b'{"file_name": "a.png", "text": ["x"]}', "the caption of a.png is no text"),
        (b'{"file_name": "a.png", "text": "\\ud800"}', "a.png: its caption is not in UTF-8"),
        (b'{"file_name": "a.png", "text": "\xff"}', "a.png: its caption is not in UTF-8"),
        (b'{"file_name": "a.png", "text": "' + b"x" * 10_001 + b'"}', "a.png: its caption is longer than"),
        (b'{"file_name": "a.png", "text": "' + b"x" * (1 << 20) + b'"}', "it is longer than 1,048,576 bytes"),
    ],
)
def test_lines_that_make_no_sense_are_listed_and_the_others_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    content = b'{"file_name": "b.png", "text": "y"}\n\n' + line + b'\n{"file_name": "c.png", "text": "z"}'
    found, skipped = read(tmp_path, "metadata.jsonl", content)
    assert found == {"b.png": "y", "c.png": "z"}
    assert list(skipped) == ["metadata.jsonl, line 3"]
    assert skipped["metadata.jsonl, line 3"].startswith(reason)


def test_only_a_newline_ends_a_line_of_json(tmp_path: Path) -> None:
    line = '{"file_name": "a.png", "text": "one\u2028two\x85three"}'
    assert texts(tmp_path, "metadata.jsonl", line) == {"a.png": "one two three"}


def test_a_huge_field_costs_its_row_only(tmp_path: Path) -> None:
    rows = f"file_name,text\na.png,x\nb.png,{'y' * 200_000}\nc.png,z\n"
    found, skipped = read(tmp_path, "metadata.csv", rows)
    assert found == {"a.png": "x", "c.png": "z"}
    assert skipped == {"metadata.csv, line 3": "it is no CSV (field larger than field limit (131072))"}


def test_a_quote_that_is_never_closed_is_listed(tmp_path: Path) -> None:
    found, skipped = read(tmp_path, "metadata.csv", 'file_name,text\na.png,x\nb.png,"y\nc.png,z\n')
    assert found == {"a.png": "x"}
    assert list(skipped.values()) == ["it is no CSV (unexpected end of data)"]


def test_a_field_may_hold_line_breaks_and_commas(tmp_path: Path) -> None:
    assert texts(tmp_path, "metadata.csv", 'text,file_name\n"a,\r\nb ""c""",a.png\n\nd\n') == {
        "a.png": 'a, b "c"'
    }


def test_a_csv_without_the_column_of_names_says_so(tmp_path: Path) -> None:
    for content in ("file,text\na.png,x\n", b"\xff\xfef\0i\0", "file_name;text\na.png;x\n"):
        found, skipped = read(tmp_path, "metadata.csv", content)
        assert found == {}
        assert list(skipped) == ["metadata.csv, line 1"]


def test_of_two_captions_the_first_counts_and_the_other_is_listed(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,second\n./a.png,third\n")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "first"}')
    captions = read_captions(tmp_path, ["metadata.jsonl", "metadata.csv"])
    assert captions.texts == {"a.png": "first"}
    assert [each.path for each in captions.skipped] == ["metadata.csv, line 2", "metadata.csv, line 3"]
    assert "metadata.jsonl, line 1" in captions.skipped[0].reason


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_file_is_one_caption_in_one_line(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("  ein\tÄpfel\r\n\nrot \n".encode(coding))
    assert read_text(path) == "ein Äpfel rot"


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"caf\xe9", b"x" * 10_001, b"x" * (2 << 20)])
def test_a_text_file_that_is_no_caption_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"caption|utf-16|truncated"):
        read_text(path)


@given(data=st.binary(max_size=200), table=st.sampled_from(["metadata.jsonl", "metadata.csv"]))
def test_no_bytes_are_fatal(tmp_path_factory: pytest.TempPathFactory, data: bytes, table: str) -> None:
    root = tmp_path_factory.mktemp("any")
    read(root, table, b'file_name,text\n{"file_name": ' + data)


def test_plain_names_are_fixed_points() -> None:
    for name in ("a.png", "./a.png", "x//y/../a.png", "e\u0301.png"):
        assert plain_name(plain_name(name)) == plain_name(name)
