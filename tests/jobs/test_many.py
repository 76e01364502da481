"""Many processes and many lines: torchrun's shards, and plans that are streamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from sdscratch.cli.run import shard_of
from sdscratch.cli.run_shown import own_device, started_together
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Plan
from sdscratch.jobs.tasks import Models, look_over

# where torchrun and SLURM say which process this is
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_launchers_say_which_shard_a_process_is(environment: dict[str, str]) -> None:
    shard = shard_of(None, environment)
    assert (shard.index, shard.count) == (3, 8)
    shard = shard_of("2/3", environment)
    assert (shard.index, shard.count) == (1, 3)
    assert own_device("cpu", environment) == "cpu"
    alone = {name: "1" if name in ("WORLD_SIZE", "SLURM_NTASKS") else "0" for name in environment}
    assert shard_of(None, alone).count == 1
    assert not started_together(SLURM)


@pytest.mark.full
def test_two_processes_of_torchrun_draw_a_plan_together(tmp_path: Path, tiny_model: Path) -> None:
    lines = [{"prompt": f"a dog {n}", "seed": n} for n in range(5)]
    lines[2] |= {"prompt": "a cat", "batch_count": 2}
    (tmp_path / "plan.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = [
        "-m",
        str(tiny_model),
        "--width",
        "64",
        "--height",
        "64",
        "--steps",
        "1",
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    run = ["-m", "sdscratch", "run", "plan.jsonl", *small, "--grid", "--json"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    together = subprocess.run(
        [sys.executable, *launcher, *run, "-o", "both/"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert together.returncode == 0, together.stderr
    alone = subprocess.run(
        [sys.executable, *run, "-o", "one/"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    drawn = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("both", "one")
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 7  # with the contact sheet
    told = [json.loads(line)["job"] for line in together.stdout.splitlines()]
    assert sorted(told) == [1, 2, 3, 3, 4, 5]
    journals = {path.name for path in (tmp_path / "both").glob("journal*")}
    assert journals == {"journal-1-of-2.jsonl", "journal-2-of-2.jsonl"}


def plan_of(path: Path, lines: int) -> Plan:
    if path.suffix == ".toml":
        path.write_text(f'prompt = "a"\n[axes]\nseed = "0..{lines - 1}"\n')
    else:
        with path.open("w") as file:
            file.writelines(f"a dog {n} --d {n}\n" for n in range(lines))
    return Plan(path, {"steps": 2}, 0)


@pytest.mark.full
@pytest.mark.parametrize("name", ["plan.txt", "plan.toml"])
def test_a_plan_of_any_length_is_not_held(tmp_path: Path, name: str) -> None:
    """Memory at its most does not grow with the lines, once caches of a fixed size are full."""
    plan = plan_of(tmp_path / name, 1_000_001)
    tracemalloc.start()
    assert sum(1 for _ in islice(plan, 2000)) == 2000
    _, few = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    assert sum(1 for _ in islice(plan, 4000)) == 4000
    _, more = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert more < few + 100_000


@pytest.mark.full
def test_more_than_a_million_lines_are_checked_in_little_memory(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "plan.txt", 1_000_001)
    look_over(plan_of(tmp_path / "few.txt", 1000), Models(), Template("{seed}.png"))
    before = resident()
    overview = look_over(plan, Models(), Template("{seed}.png"))
    assert overview.pictures == 1_000_001
    assert resident() - before < 64 * 2**20


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
