"""`train lora` as a user meets it: what a run leaves, that it draws, and that it survives anything."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from sdscratch.addons.lora import open_lora
from sdscratch.checkpoints.model import open_model
from sdscratch.generation.pipeline import load
from sdscratch.training.engine import state
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.run import job
from sdscratch.training.run.lora_options import LoraPlan, parse_targets
from support.checkpoints import TINY
from support.cli import Result, sdscratch
from support.reference import difference
from support.shapes_folder import write_pictures

FIXED = [
    *("--resolution", 64, "--train-batch-size", 4, "--workers", 1, "--device", "cpu", "--lr-warmup-steps", 1),
]


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[object]:
    """A run of a few steps a second."""
    pictures = write_pictures(tmp_path_factory.mktemp("data") / "pictures")
    return [pictures, "--model", tiny_model, *FIXED]


def lora(common: list[object], output: Path, steps: int, *more: object) -> Result:
    return sdscratch("train", "lora", *common, "--output", output, "--max-train-steps", steps, *more)


def test_a_run_leaves_a_lora_that_draws(common: list[object], tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steep = ["--learning-rate", 0.02, "--rank", 3, "--lora-alpha", 6, "--mixed-precision", "no"]
    result = lora(common, run, 3, *steep, "--json", "--validation-prompt", "a disc")
    assert result.code == 0, result.stderr
    path = run / "lora.safetensors"
    assert json.loads(result.stdout)["path"] == str(path)
    names = {each.name for each in run.iterdir()}
    assert names == {
        "cache",
        "checkpoints",
        "config.toml",
        "loss.png",
        "lora.safetensors",
        "metrics.jsonl",
        "samples",
    }
    assert [each.name for each in (run / "samples").iterdir()] == ["step-00000003.png"]

    opened = open_lora(path, TINY)
    assert set(opened.modules) == set(LoraPlan().chosen(TINY))
    base = open_model(tiny_model)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("3", "6.0")
    assert metadata["ss_new_sd_model_hash"] == base.hash()
    about = json.loads(metadata["sdscratch.provenance"])
    assert (about["steps"], about["base"], about["pictures"]) == (3, base.name, 8)

    options = {"seed": 1, "steps": 2, "width": 64, "height": 64}
    plain = load(str(tiny_model), device="cpu", dtype="float32").txt2img("a red disc", **options)
    drawn = load(str(tiny_model), device="cpu", dtype="float32", lora=str(path)).txt2img(
        "a red disc", **options
    )
    assert difference(drawn, plain)[0] > 3


def test_everything_at_once(common: list[object], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["--lora-targets", "all", "--train-text-encoder", "--gradient-checkpointing", "--use-ema"]
    result = lora(common, run, 2, *command, "--mixed-precision", "bf16", "--dtype", "float16")
    assert result.code == 0, result.stderr
    plan = LoraPlan(targets=parse_targets("all"), text_encoder=True)
    path = Path(result.lines[0])
    assert set(open_lora(path, TINY).modules) == set(plan.chosen(TINY))
    dtypes = {name.rsplit(".", 2)[-2]: str(tensor.dtype) for name, tensor in load_file(path).items()}
    assert (dtypes["lora_down"], dtypes["lora_up"]) == ("torch.float16", "torch.float16")
    (checkpoint,) = (run / "checkpoints").iterdir()
    kept = load_file(checkpoint)
    assert list((run / "samples").iterdir()) == []  # nothing is drawn unasked: models may be slow
    assert {t.dtype.itemsize for n, t in kept.items() if n.startswith(("weight.", "average."))} == {4}
    assert all(".adapter.lora_" in name for name in kept if name != "checksum")


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_said_to_be_float32_where_the_processor_does_not_multiply_it(
    able: bool, monkeypatch: pytest.MonkeyPatch, common: list[object], tmp_path: Path
) -> None:
    monkeypatch.setattr(job, "multiplies", lambda dtype: able)
    result = lora(common, tmp_path / "run", 1, "--mixed-precision", "bf16")
    assert result.code == 0, result.stderr
    assert ("multiplies no bfloat16: training in float32" in result.stderr) == (not able)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rank", 0], "from 1 to 1024"),
        (["--lora-alpha", 0], "must be above 0"),
        (["--lora-targets", "heads"], "some of attention, feed-forward, convolution"),
        (["--resolution", 40], "at least 64"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    arguments: list[object], message: str, common: list[object], tmp_path: Path
) -> None:
    result = lora(common, tmp_path / "run", 2, *arguments)
    assert (result.code, result.stdout) == (2, b"")
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, "-m", "sdscratch", "train", "lora", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.full
def test_a_killed_run_goes_on_as_if_nothing_had_happened(common: list[object], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = [
        "--checkpointing-steps",
        2,
        "--random-flip",
        "--mixed-precision",
        "no",
    ]
    assert lora(common, whole, 16, *more).code == 0
    process = start(*common, *more, "--output", killed, "--max-train-steps", 16)
    while not state.checkpoints(killed / "checkpoints"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (killed / "lora.safetensors").exists(), "it was killed too late"
    resumed = sdscratch("train", "lora", "--output", killed, "--resume-from-checkpoint", "latest")
    assert resumed.code == 0, resumed.stderr
    assert (killed / "lora.safetensors").read_bytes() == (whole / "lora.safetensors").read_bytes()
    losses = [[r["loss"] for r in read_metrics(run / "metrics.jsonl")] for run in (whole, killed)]
    assert losses[0] == losses[1]


@pytest.mark.full
def test_two_processes_are_one(common: list[object], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert lora(common, one, 3, "--gradient-accumulation-steps", 2, "--mixed-precision", "no").code == 0
    command = [*common, "--output", two, "--max-train-steps", 3, "--mixed-precision", "no"]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    process = start(*command, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert out.decode().split() == [str(two / "lora.safetensors")]
    losses = [[r["loss"] for r in read_metrics(run / "metrics.jsonl")] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
