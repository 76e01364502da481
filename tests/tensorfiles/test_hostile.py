"""A file that means harm is refused, and nothing of what it tries ever happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import guarded
from support.hostile import BREAKING, FORMS, HARMLESS, RUNNING, as_bare, as_zip, checkpoint, value

ALL = RUNNING | BREAKING | HARMLESS
LONGEST = 10  # seconds
MOST_MEMORY = 600 << 10  # kilobytes above what torch itself takes


def run_guarded(reader: str, files: list[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """What guarded.py reports of each file."""
    sound = folder / "sound"
    (as_zip if reader == "reader" else as_bare)(sound, checkpoint(value(1)))
    done = subprocess.run(
        [sys.executable, guarded.__file__, reader, str(sound), *map(str, files)],
        cwd=folder,  # if anything ever did write, it would be here
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(report["file"]).name: report for report in reports}


@pytest.fixture(scope="module")
def numbered() -> dict[str, int]:
    return {name: index for index, name in enumerate(ALL)}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, numbered: dict[str, int]) -> dict[str, dict[str, Any]]:
    """What the reader did with each attack, in each form that a pickle has in a checkpoint."""
    folder = tmp_path_factory.mktemp("hostile")
    files = []
    for form, write in FORMS.items():
        for name, attack in ALL.items():
            files.append(folder / f"{numbered[name]}.{form}")
            write(files[-1], attack.pickle)
    return run_guarded("reader", files, folder)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, numbered: dict[str, int]) -> dict[str, dict[str, Any]]:
    """What Python's own unpickler would have done."""
    folder = tmp_path_factory.mktemp("control")
    files = []
    for name, attack in RUNNING.items():
        files.append(folder / f"{numbered[name]}.bare")
        files[-1].write_bytes(attack.pickle)
    return run_guarded("pickle", files, folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RUNNING | BREAKING)
def test_an_attack_is_refused_and_does_nothing(
    name: str, form: str, reports: dict[str, Any], numbered: dict[str, int]
) -> None:
    report = reports[f"{numbered[name]}.{form}"]
    assert report["events"] == []
    assert report["outcome"].startswith("CheckpointError: ")
    assert report["outcome"].isprintable()
    assert report["seconds"] < LONGEST


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", HARMLESS)
def test_odd_values_beside_the_weights_do_not_disturb(
    name: str, form: str, reports: dict[str, Any], numbered: dict[str, int]
) -> None:
    report = reports[f"{numbered[name]}.{form}"]
    assert report["events"] == []
    assert report["outcome"] == "read"
    assert report["seconds"] < LONGEST


def test_memory_stays_bounded(reports: dict[str, Any]) -> None:
    peaks = [report["memory"] for report in reports.values()]
    assert peaks[-1] - peaks[0] < MOST_MEMORY


@pytest.mark.parametrize("name", RUNNING)
def test_the_hook_would_have_seen_it(name: str, control: dict[str, Any], numbered: dict[str, int]) -> None:
    expected = RUNNING[name].event
    assert expected is not None
    seen = control[f"{numbered[name]}.bare"]["events"]
    assert any(event.startswith(expected) for event in seen)


def test_there_are_many_attacks() -> None:
    assert len(RUNNING) >= 40
