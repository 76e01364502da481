"""`convert-weights` as a script meets it: stdout, stderr, exit codes, names."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from sdscratch.checkpoints.model import open_model
from sdscratch.cli import convert as command
from support.checkpoints import (
    TINY,
    ema_tensors,
    ldm_extras,
    ldm_tensors,
    self_contained,
    write_diffusers,
    write_ldm,
)
from support.cli import sdscratch


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with everything beside it that files have, in the working folder."""
    monkeypatch.chdir(tmp_path)
    tensors = ldm_tensors() | ldm_extras() | ema_tensors()
    return write_ldm(Path("model.safetensors"), tensors, self_contained())


def test_the_path_is_on_stdout_and_everything_else_on_stderr() -> None:
    result = sdscratch("convert-weights", "model.safetensors", "out.safetensors")
    assert (result.code, result.lines) == (0, ["out.safetensors"])
    stages = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert [stage for stage in stages if stage in ("writing", "verifying")] == ["writing", "verifying"]
    assert "MB/s" in result.stderr
    assert "betas" in result.stderr
    assert "model_ema.* (688 tensors)" in result.stderr
    assert open_model("out.safetensors").config == TINY


def test_json_tells_everything() -> None:
    result = sdscratch("convert-weights", "model.safetensors", "out", "--to", "diffusers", "--json", "-q")
    record = json.loads(result.stdout)
    assert result.stderr == ""
    assert {key: record[key] for key in ("path", "layout", "tensors", "has_tokenizer", "verified")} == {
        "path": "out",
        "layout": "diffusers",
        "tensors": 970,
        "has_tokenizer": True,
        "verified": True,
    }
    assert len(record["dropped"]) == len(ldm_extras()) + len(ema_tensors())


def test_verifying_can_be_left_out() -> None:
    result = sdscratch("convert-weights", "model.safetensors", "out.safetensors", "--no-verify", "--json")
    assert not json.loads(result.stdout)["verified"]
    assert "verifying" not in result.stderr


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["model.safetensors"], "model-converted.safetensors"),
        (["model.safetensors", "--dtype", "float16"], "model-float16.safetensors"),
        (["model.safetensors", "--ema"], "model-ema.safetensors"),
        (["model.safetensors", "--to", "diffusers"], "model"),
        (["model.safetensors", "made/"], "made/model.safetensors"),
        (["folder"], "folder.safetensors"),
        (["sub/model.safetensors", "--dtype", "float16"], "sub/model-float16.safetensors"),
        (["named"], "weights/named-converted.safetensors"),
    ],
)
def test_the_result_is_named_like_the_source(options: list[str], name: str) -> None:
    for path in ("sub/model.safetensors", "weights/named.safetensors"):
        Path(path).parent.mkdir()
        write_ldm(Path(path), ldm_tensors(), self_contained())
    Path("made").mkdir()
    write_diffusers(Path("folder"), TINY)
    result = sdscratch("convert-weights", *options, "-q", "--no-verify")
    assert result.lines == [name]
    assert Path(name).exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["nothing.ckpt"], 3, "there is no model nothing.ckpt"),
        (["model.safetensors", "model.safetensors"], 2, "exists already"),
        (["model.safetensors", "out.ckpt"], 2, "would be a .safetensors file"),
        (["model.safetensors", ""], 2, "DST is empty"),
        (["model.safetensors", "no/such/folder.safetensors"], 1, "its folder does not exist"),
        (["model.safetensors", "--dtype", "int4"], 2, "int4"),
        (["model.safetensors", "--to", "onnx"], 2, "onnx"),
        (["model.safetensors", "--tokenizer", "nowhere"], 3, "no tokenizer at nowhere"),
        (["plain.safetensors", "--ema"], 3, "no moving averages"),
        (["page.safetensors"], 3, "a web page"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(options: list[str], code: int, said: str) -> None:
    write_ldm(Path("plain.safetensors"), ldm_tensors(), self_contained())
    Path("page.safetensors").write_text("<!DOCTYPE html><html>")
    before = sorted(Path().iterdir())
    result = sdscratch("convert-weights", *options, "-q")
    assert result.code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == b""
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "full"), 1, "no space is left on its disk"),
    ],
    ids=["Ctrl-C", "disk full"],
)
@pytest.mark.parametrize("to", ["ldm", "diffusers"])
def test_nothing_is_left_of_what_was_not_finished(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int, said: str, to: str
) -> None:
    def fail(self: object, stage: str, done: int, total: int) -> None:
        raise failure

    monkeypatch.setattr(command.Stages, "report", fail)
    result = sdscratch("convert-weights", "model.safetensors", "--to", to)
    assert result.code == code
    assert said in result.stderr
    assert [path.name for path in Path().iterdir()] == ["model.safetensors"]


def test_names_from_a_file_do_not_reach_the_terminal_raw() -> None:
    tensors = ldm_tensors() | {"first_stage_model.loss.\x1b[2J": ldm_extras()["betas"]}
    write_ldm(Path("odd.safetensors"), tensors, self_contained())
    assert "\x1b" not in sdscratch("convert-weights", "odd.safetensors").stderr


def test_long_lists_are_cut() -> None:
    told = command.summary([f"first_stage_model.loss.{n}" for n in range(50)])
    assert told.endswith("and 10 more (--json tells all)")
