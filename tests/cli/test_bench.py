"""`bench`: one table for people, a line of JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import sdscratch

QUICK = ("--size", "64x64", "--steps", 1, "--repeats", 1, "--device", "cpu", "--dtype", "float32")


def test_the_table_fits_a_terminal_and_stands_alone_on_stdout(tiny_model: Path) -> None:
    result = sdscratch("bench", "-m", tiny_model, *QUICK)
    assert result.code == 0, result.stderr
    assert all(len(line) <= 80 for line in result.lines)
    labels = [line[:16].strip() for line in result.lines]
    for label in ("model", "processor", "load", "text encoding", "step", "decode", "picture", "peak memory"):
        assert label in labels
    assert "of 30 steps, the model's own" in result.stdout.decode()
    assert result.stderr.splitlines()[:2] == ["warming up", "loading"]


def test_batches_have_rows_of_their_own(tiny_model: Path) -> None:
    result = sdscratch("bench", "-m", tiny_model, *QUICK, "--batch-size", 2, "--parity", "-q")
    assert result.code == 0, result.stderr
    text = result.stdout.decode()
    assert "step, 2 at once" in text
    assert "the same, at most 0, on average 0 levels of 255" in text
    assert all(len(line) <= 80 for line in result.lines)
    assert result.stderr == ""


def test_json_is_one_line(tiny_model: Path) -> None:
    result = sdscratch("bench", "-m", tiny_model, *QUICK, "--json", "-q")
    (line,) = result.lines
    record = json.loads(line)
    assert record["model"] == "tiny"
    assert record["stages"]["step"]["pictures"] == 1
    assert record["peak"]["bytes"] > 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--model", "x.safetensors", "--random", "sd1"), 2, "both say which weights"),
        (("--random", "sd9"), 2, "no shape is called 'sd9'; choose one of sd1"),
        (("--size", "64"), 2, "the size is '64'"),
        (("--device", "frob"), 2, "no device is called"),
        (("-m", "nowhere.safetensors"), 3, "nowhere.safetensors"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_loaded(
    words: tuple[str, ...], code: int, said: str
) -> None:
    result = sdscratch("bench", *words)
    assert result.code == code
    assert said in result.stderr.splitlines()[-1]
    assert result.stdout == b""
