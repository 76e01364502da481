"""`train shapes`: a folder to begin with, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import sdscratch


def test_a_folder_of_shapes_is_made_and_named_on_stdout(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    result = sdscratch("train", "shapes", folder, "--count", 12, "--size", 32)
    assert (result.code, result.lines) == (0, [str(folder)])
    assert "drawing" in result.stderr
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{index:02}.png" for index in range(12)]
    assert all((folder / row["file_name"]).is_file() for row in rows)


def test_json_and_quiet(tmp_path: Path) -> None:
    result = sdscratch("train", "shapes", tmp_path / "a", "--count", 2, "--size", 16, "--json", "--quiet")
    assert json.loads(result.stdout) == {"path": str(tmp_path / "a"), "pictures": 2}
    assert result.stderr == ""


@pytest.mark.parametrize("wrong", [["--count", 0], ["--size", 8], ["--seed", -1]])
def test_ranges_are_checked(tmp_path: Path, wrong: list[object]) -> None:
    assert sdscratch("train", "shapes", tmp_path / "a", *wrong).code == 2
    assert not (tmp_path / "a").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    result = sdscratch("train", "shapes", tmp_path)
    assert result.code == 2
    assert "not empty; choose another name" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
