"""The check of a GPU, tried on a CPU: it looks at everything, and sees what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdscratch.bench import gpu_check
from sdscratch.bench.gpu_check import GROUPS, check, main, small_work
from sdscratch.bench.gpu_report import Report, table
from sdscratch.generation.start import device_noise


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> Report:
    return check(small_work("cpu", str(tiny_model)), minutes=10)


def test_a_cpu_is_found_to_draw_what_a_cpu_draws(report: Report) -> None:
    assert report.passed, table(report)
    exact = [row for row in report.rows if row.name.endswith("float32") and row.unit == "dB"]
    assert exact
    assert all(row.value is None for row in exact), "float32 on a CPU is the exact picture itself"


def test_every_group_is_looked_at_in_both_precisions(report: Report) -> None:
    assert {group for group, _ in GROUPS} <= {row.group for row in report.rows}
    for group in ("samplers", "decode", "LoRA", "options", "batch beside single"):
        names = " ".join(row.name for row in report.rows if row.group == group)
        assert "float32" in names
        assert "bfloat16" in names


def test_the_speed_of_every_batch_and_the_memory_are_told(report: Report) -> None:
    told = {row.name: row.value for row in report.rows if row.group == "speed"}
    assert {"1 at once, float32", "2 at once, float32", "decode 1, float32"} <= told.keys()
    assert all(value is not None and value > 0 for value in told.values())
    (memory,) = [row for row in report.rows if row.group == "memory"]
    assert memory.value is not None
    assert memory.value > 0.01


def test_other_noise_on_the_device_is_seen(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def drifting(source: object, device: torch.device) -> object:
        draw = device_noise(source, device)  # type: ignore[arg-type]

        def drawn(*interval: float | None) -> Tensor:
            nonlocal calls
            calls += 1
            return draw(*interval) + 0.05 * calls  # no two pictures get the same

        return drawn

    monkeypatch.setattr("sdscratch.generation.sampling.device_noise", drifting)
    monkeypatch.setattr(gpu_check, "GROUPS", tuple(pair for pair in GROUPS if pair[0] == "samplers"))
    found = check(small_work("cpu", str(tiny_model)), minutes=10)
    assert not found.passed
    assert "**wrong**" in table(found)


def test_an_error_is_a_row_and_the_rest_goes_on(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> object:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(gpu_check, "GROUPS", (("LoRA", broken), ("decode", gpu_check.decoding)))
    found = check(small_work("cpu", str(tiny_model)), minutes=10)
    assert [row.group for row in found.rows if row.passed is False] == ["LoRA"]
    assert found.rows[0].note.startswith("CUDA error")
    assert any(row.group == "decode" and row.passed for row in found.rows)


def test_it_ends_when_its_minutes_are_over(tiny_model: Path) -> None:
    found = check(small_work("cpu", str(tiny_model)), minutes=0)
    assert len(found.rows) == 2
    assert found.rows[-1].note == "the rest was left out"


def test_the_script_writes_json_and_ends_without_a_gpu(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "GROUPS", (("decode", gpu_check.decoding),))
    out = tmp_path / "figures.json"
    assert main(["--device", "cpu", "--small", "--model", str(tiny_model), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["passed"] is True
    assert capsys.readouterr().out.startswith("| | | measured")
    assert main(["--device", "cpu"]) == 5
