"""Many processes and many lines: torchrun's shards, and plans that are streamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdscratch.cli.run import shard_of
from sdscratch.cli.run_shown import own_device, started_together

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
