"""Nothing lost, nothing twice, whatever ends a run: real processes that are killed, that find the disk full,
that run beside each other. The pictures are those of an undisturbed run, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from support.checkpoints import SMALLER, ldm_tensors, self_contained, write_ldm
from support.forks import Command

PICTURES = 6


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan and a model that draws in a moment."""
    folder = tmp_path_factory.mktemp("faults")
    write_ldm(folder / "model.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))
    lines = [{"prompt": f"a {{dog|cat}} {n}", "batch_count": 1 + n % 2} for n in range(4)]
    (folder / "plan.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


SMALL = (
    "--width",
    64,
    "--height",
    64,
    "--steps",
    1,
    "--cfg-scale",
    1,
    "--device",
    "cpu",
    "--dtype",
    "float32",
)
ARGUMENTS = ("run", "plan.jsonl", "-m", "model.safetensors", *SMALL, "--seed", 5)


@pytest.fixture(scope="module")
def whole(workplace: Path) -> tuple[dict[str, bytes], float]:
    """What an undisturbed run draws, and how long it takes once everything is warm."""
    for name in ("warm", "whole"):
        started = time.monotonic()
        result = Command(*ARGUMENTS, "-o", f"{name}/", folder=workplace).result()
        assert result.code == 0, result.stderr
    drawn = pictures(workplace / "whole")
    assert len(drawn) == PICTURES
    assert drawn == pictures(workplace / "warm")
    return drawn, time.monotonic() - started


def finish(workplace: Path, name: str, *, again: bool = True) -> None:
    """Run it to its end; nothing that was done is done again: by the journal, and where it is run anew."""
    result = Command(*ARGUMENTS, "-o", f"{name}/", folder=workplace).result()
    assert result.code == 0, result.stderr
    lines = (workplace / name / "journal.jsonl").read_bytes().splitlines()
    assert Counter(json.loads(line)["name"] for line in lines).most_common(1)[0][1] == 1
    if again:
        rerun = Command(*ARGUMENTS, "-o", f"{name}/", "--json", folder=workplace).result()
        assert [json.loads(line).get("done") for line in rerun.lines] == [True] * PICTURES


def killed_runs(
    workplace: Path, whole: tuple[dict[str, bytes], float], kills: int, *, again: bool = True
) -> None:
    drawn, seconds = whole
    chance = Random(kills)
    left, number = kills, 0
    while left:
        name = f"killed-{kills}-{number}"
        number += 1
        for _ in range(chance.randint(1, 4)):  # a run is killed more than once
            if left and Command(*ARGUMENTS, "-o", f"{name}/", folder=workplace).killed(
                chance.random() * seconds
            ):
                left -= 1
                here = pictures(workplace / name)
                assert all(drawn[each] == data for each, data in here.items())
        finish(workplace, name, again=again)
        assert pictures(workplace / name) == drawn


def test_runs_that_are_killed_go_on_to_the_same_pictures(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    killed_runs(workplace, whole, 5)


@pytest.mark.full
def test_fifty_five_more_kills_and_seventeen_more_full_disks_cost_nothing(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    """With those that every run of the tests sees, sixty and twenty."""
    killed_runs(workplace, whole, 55, again=False)
    full_disks(workplace, whole, 17, again=False)


def full_disks(
    workplace: Path, whole: tuple[dict[str, bytes], float], points: int, *, again: bool = True
) -> None:
    """Every file ends at a byte: in run.json, in a line of the journal, in a picture."""
    drawn, _ = whole
    journal = (workplace / "whole" / "journal.jsonl").stat().st_size
    largest = max(map(len, drawn.values()))
    for index in range(points):
        most = (largest if index % 2 else journal) * index // points
        name = f"full-{points}-{index}"
        result = Command(*ARGUMENTS, "-o", f"{name}/", folder=workplace, most=most).result()
        assert result.code == 1, (most, result.stderr)
        assert "cannot write" in result.stderr
        assert "Traceback" not in result.stderr
        assert all(drawn[each] == data for each, data in pictures(workplace / name).items())
        assert not list((workplace / name).glob(".*.part"))
        finish(workplace, name, again=again)
        assert pictures(workplace / name) == drawn


def test_a_full_disk_costs_nothing_that_is_done(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    full_disks(workplace, whole, 3)


def test_of_two_runs_in_one_folder_the_second_says_so(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    first, second = (Command(*ARGUMENTS, "-o", "both/", folder=workplace) for _ in range(2))
    results = sorted((first.result(), second.result()), key=lambda result: result.code)
    assert [result.code for result in results] == [0, 1]
    assert "another run is at work in both" in results[1].stderr
    assert not results[1].lines
    assert pictures(workplace / "both") == whole[0]


def test_shards_beside_each_other_draw_the_plan_once(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    shards = [
        Command(*ARGUMENTS, "-o", "shards/", "--shard", f"{index}/3", folder=workplace) for index in (1, 2, 3)
    ]
    results = [shard.result() for shard in shards]
    assert [result.code for result in results] == [0, 0, 0]
    assert sum(len(result.lines) for result in results) == PICTURES
    assert pictures(workplace / "shards") == whole[0]


def test_ctrl_c_drops_the_picture_in_hand_and_keeps_the_others(
    workplace: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    command = Command(*ARGUMENTS, "-o", "stopped/", folder=workplace)
    while not pictures(workplace / "stopped"):
        time.sleep(0.005)
    os.kill(command.pid, signal.SIGINT)
    assert command.result().code == 130
    assert not list((workplace / "stopped").glob(".*.part"))
    finish(workplace, "stopped")
    assert pictures(workplace / "stopped") == whole[0]
