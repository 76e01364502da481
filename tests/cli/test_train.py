"""`train` as a user meets it: what a run leaves, what is refused before it, and that it survives anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from sdscratch.checkpoints.model import open_model
from sdscratch.generation.pipeline import load
from sdscratch.images import read_picture
from sdscratch.tensorfiles.reader import open_tensors
from sdscratch.training.engine import state
from sdscratch.training.engine.metrics import read_metrics
from sdscratch.training.tasks.autoencoder_files import open_autoencoder
from support.cli import Result, sdscratch
from support.shapes_folder import write_pictures

SHAPE = """
[unet]
channels = 8
multipliers = [1, 2]
attends = [false, true]
residual_blocks = 1
heads = 2
context = 16
norm_groups = 4
[text]
width = 16
layers = 1
heads = 2
feed_forward = 32
[autoencoder]
channels = 4
multipliers = [1, 2]
residual_blocks = 1
latent_scale = 1.0
norm_groups = 2
[schedule]
beta_end = 0.0224
prediction = "v"
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "shape.toml"
    path.write_text(SHAPE)
    return path


@pytest.fixture(scope="module")
def common(pictures: Path, shape: Path) -> list[object]:
    """A run of the autoencoder that takes a second or two."""
    options = {
        "resolution": 64,
        "train-batch-size": 4,
        "validation-steps": 1000,
        "workers": 1,
        "device": "cpu",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [pictures, "--architecture", shape, "--mixed-precision", "no", *words]


def autoencoder(common: list[object], output: Path, steps: int, *more: object) -> Result:
    return sdscratch("train", "autoencoder", *common, "--output", output, "--max-train-steps", steps, *more)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_run_leaves_its_folder_whole_and_its_config_repeats_it(
    common: list[object], tmp_path: Path
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    result = autoencoder(common, run, 6, "--validation-steps", 3)
    assert (result.code, result.lines) == (0, [str(run / "model.safetensors")]), result.stderr
    assert "step 6" in result.stderr
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoints", "config.toml", "loss.png", "metrics.jsonl", "model.safetensors", "samples",
    }  # fmt: skip
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(record["loss"] > 0 for record in records)
    assert {path.name for path in (run / "samples").iterdir()} == {"step-00000003.png", "step-00000006.png"}
    assert size(run / "samples" / "step-00000006.png") == (4 * 64, 2 * 64)
    assert size(run / "loss.png") == (960, 540)

    repeated = sdscratch("train", "autoencoder", "--config", run / "config.toml", "--output", again, "--json")
    facts = json.loads(repeated.stdout)
    assert (facts["path"], facts["steps"]) == (str(again / "model.safetensors"), 6)
    assert facts["loss"] == records[-1]["loss"]
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_latents_of_an_autoencoder_from_nothing_have_mean_0_and_deviation_1(
    common: list[object], pictures: Path, tmp_path: Path
) -> None:
    assert autoencoder(common, tmp_path / "run", 3, "--dtype", "float32").code == 0
    files = open_autoencoder(str(tmp_path / "run" / "model.safetensors"))
    assert files.config.latent_scale == 1.0
    levels = torch.stack([torch.from_numpy(np.array(read_picture(path))) for path in pictures.glob("*.png")])
    mean = files.load("encoder", torch.device("cpu"))(levels.permute(0, 3, 1, 2) / 127.5 - 1).mean
    assert_close(mean.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=0.05)
    assert_close(mean.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=0.05)


def test_a_model_made_from_nothing_draws(common: list[object], tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["--vae", tiny_model, "--output", run, "--max-train-steps", 3, "--snr-gamma", 5]
    prompts = ["--validation-prompt", "a red disc", "--validation-prompt", "a blue square"]
    result = sdscratch("train", "diffusion", *common, *command, *prompts)
    assert result.code == 0, result.stderr
    assert size(run / "samples" / "step-00000003.png") == (2 * 64, 64)
    assert load(result.lines[0]).txt2img("a red disc", seed=0, steps=2).size == (64, 64)
    files = open_model(result.lines[0])
    assert (files.defaults.width, files.config.schedule.prediction) == (64, "v")
    assert json.loads(files.metadata["sdscratch.provenance"])["steps"] == 3


def test_fine_tuning_changes_the_unet_alone_unless_asked(
    pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fixed = ["--resolution", 64, "--device", "cpu", "--max-train-steps", 2, "--lr-warmup-steps", 0]
    base = open_model(tiny_model)
    for flag, changed in (("--freeze-text-encoder", {"unet"}), ("--train-text-encoder", {"text", "unet"})):
        run = tmp_path / flag
        command = [pictures, "--model", tiny_model, *fixed, flag, "--learning-rate", 1e-3, "--output", run]
        result = sdscratch("train", "diffusion", *command, "--gradient-checkpointing", "--workers", 2)
        assert not list((run / "samples").iterdir())
        assert result.code == 0, result.stderr
        files = open_model(result.lines[0])
        differ = {w.part for w in base.stored if not torch.equal(base.read(w), files.read(w))}
        assert differ == changed
        assert files.info(next(iter(files.stored))).dtype == "F32"  # as the base is
        assert (run / "cache" / "texts").is_dir() == (changed == {"unet"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-train-steps", 5], "--output is missing"),
        (["--output", "RUN"], "either --max-train-steps or --max-train-minutes"),
        (["--output", "RUN", "--max-train-steps", 5, "--max-train-minutes", 1], "either"),
        (["--output", "RUN", "--max-train-steps", 5, "--caption-dropout", 2], "from 0 to 1"),
        (["--output", "RUN", "--max-train-steps", 5, "--max-grad-norm", "nan"], "at least 0"),
        (["--output", "RUN", "--max-train-steps", 5, "--workers", 3], "3 workers"),
        (["--output", "RUN", "--max-train-steps", 5, "--resolution", 40], "at least 64"),
        (["--output", "RUN", "--max-train-steps", 5, "--device", "tpu"], "no device is called 'tpu'"),
        (["--output", "RUN", "--max-train-steps", 5, "--freeze-text-encoder"], "must be trained"),
        (["--output", "RUN", "--max-train-steps", 5, "--architecture", "huge"], "tiny, small, sd1"),
        (["--output", "RUN", "--max-train-steps", 5, "--model", "x", "--architecture", "tiny"], "own shape"),
        (["--output", "RUN", "--max-train-steps", 5, "--resume-from-checkpoint", "no"], "is no file"),
        (["--output", "FULL", "--max-train-steps", 5], "exists already and is not empty"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    arguments: list[object], message: str, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a user's")
    names = {"RUN": tmp_path / "run", "FULL": tmp_path / "full"}
    words = [names.get(word, word) if isinstance(word, str) else word for word in arguments]
    result = sdscratch("train", "diffusion", pictures, *words)
    assert (result.code, result.stdout) == (2, b"")
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 1", "the nearest is 'learning_rate'"),
        ("seed = 'x'", "seed is 'x', but must be a whole number"),
        ("random-flip = 1", "random_flip is 1, but must be true or false"),
        ("validation_prompt = 'a'", "must be a list of strings"),
        ("lr_scheduler = 'sine'", "must be one of constant, linear, cosine"),
        ("train = 'autoencoder'", "is of a `train autoencoder`"),
        ("seed = ", "is not TOML"),
    ],
)
def test_a_file_of_options_is_checked_by_name(
    text: str, message: str, pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "options.toml"
    path.write_text(f'output = "{tmp_path}/run"\nmax-train-steps = 3\n{text}\n')
    result = sdscratch("train", "diffusion", pictures, "--config", path)
    assert result.code == 2
    assert message in " ".join(result.stderr.split())
    assert sdscratch("train", "diffusion", pictures, "--config", tmp_path / "none.toml").code == 2


def test_what_is_typed_comes_before_the_file(common: list[object], tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("max_train_steps = 50\nkl-weight = 1\nseed = 7\nrandom_flip = true\n")
    result = autoencoder(common, tmp_path / "run", 2, "--config", path, "--no-random-flip", "--seed", 8)
    assert result.code == 0, result.stderr
    written = (tmp_path / "run" / "config.toml").read_text()
    for line in ("max_train_steps = 2", "kl_weight = 1.0", "seed = 8", "random_flip = false"):
        assert line in written.splitlines()


def test_a_missing_folder_is_exit_4(common: list[object], tmp_path: Path) -> None:
    _, *rest = common
    assert autoencoder([tmp_path / "nothing", *rest], tmp_path / "run", 2).code == 4
    assert not (tmp_path / "run").exists()


def same_state(one: Path, other: Path) -> None:
    """The newest checkpoints of two runs hold the same bits."""
    paths = [state.newest_checkpoint(run / "checkpoints") for run in (one, other)]
    assert paths[0] is not None
    assert paths[1] is not None
    with open_tensors(paths[0]) as a, open_tensors(paths[1]) as b:
        assert a.tensors.keys() == b.tensors.keys()
        assert {name.split(".")[0] for name in a.tensors} == {"weight", "average", "optimiser", "checksum"}
        for name in a.tensors.keys() - {"checksum"}:  # which covers the time spent
            assert torch.equal(a.read(name), b.read(name)), name
    losses = [[(r["step"], r["loss"]) for r in read_metrics(run / "metrics.jsonl")] for run in (one, other)]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, len(losses[0]) + 1))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, "-m", "sdscratch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(common: list[object], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    saves = ["--checkpointing-steps", 2, "--random-flip"]
    steps = 24
    assert autoencoder(common, whole, steps, *saves).code == 0
    process = start("train", "autoencoder", *common, *saves, "--output", killed, "--max-train-steps", steps)
    while not state.checkpoints(killed / "checkpoints"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(Random().uniform(0.0, 0.2))
    process.kill()
    process.communicate()
    assert 2 <= int(state.checkpoints(killed / "checkpoints")[0].name[5:13]) < steps, "it was killed too late"
    resumed = sdscratch("train", "autoencoder", "--output", killed, "--resume-from-checkpoint", "latest")
    assert resumed.code == 0, resumed.stderr
    same_state(whole, killed)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_the_run_goes_on(
    number: int, code: int, common: list[object], tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"

    def send() -> None:
        while not read_metrics(run / "metrics.jsonl"):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    result = autoencoder(common, run, 300, "--checkpointing-steps", 1000)
    thread.join()
    assert (result.code, result.stdout) == (code, b"")
    done = read_metrics(run / "metrics.jsonl")[-1]["step"]
    assert f"step-{done:08}.safetensors" in {path.name for path in (run / "checkpoints").iterdir()}
    assert not (run / "model.safetensors").exists()
    steps = int(done) + 2
    more = ["--resume-from-checkpoint", "latest", "--lr-scheduler", "constant", "--max-train-steps", steps]
    resumed = sdscratch("train", "autoencoder", "--output", run, *more)
    assert resumed.code == 0
    assert f"max_train_steps from 300 to {steps}" in resumed.stderr
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == steps
    assert not whole.exists()


def test_a_full_disk_ends_the_run_in_one_sentence_and_spares_the_last_checkpoint(
    common: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    write = state.write_safetensors

    def filling(*arguments: object) -> None:
        saved.append(arguments)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "write_safetensors", filling)
    result = autoencoder(common, tmp_path / "run", 9, "--checkpointing-steps", 4)
    assert (result.code, result.stdout) == (1, b"")
    assert result.stderr.splitlines()[-1].startswith("sdscratch: error: cannot write ")
    assert "no space is left" in result.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [
        "step-00000004.safetensors"
    ]
    more = ["--resume-from-checkpoint", "latest"]
    assert sdscratch("train", "autoencoder", "--output", tmp_path / "run", *more).code == 0
    assert [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 10))


def test_a_run_goes_on_from_an_earlier_checkpoint(common: list[object], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert autoencoder(common, run, 8, "--checkpointing-steps", 4, "--checkpoints-total-limit", 5).code == 0
    model = (run / "model.safetensors").read_bytes()
    earlier = run / "checkpoints" / "step-00000004.safetensors"
    again = ["--resume-from-checkpoint", earlier, "--output", run]
    assert sdscratch("train", "autoencoder", *again).code == 0
    assert (run / "model.safetensors").read_bytes() == model
    refused = sdscratch("train", "autoencoder", "--output", run, "--resume-from-checkpoint", run / "loss.png")
    assert refused.code == 3


@pytest.mark.full
def test_two_processes_are_one(common: list[object], tmp_path: Path) -> None:
    """torchrun with gloo: the losses of one process with the same global batch, to 1e-5."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert autoencoder(common, one, 5, "--gradient-accumulation-steps", 2).code == 0
    command = ["train", "autoencoder", *common, "--output", two, "--max-train-steps", 5, "--json"]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    process = start(*command, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["steps"] == 5  # one of them alone talks
    losses = [[r["loss"] for r in read_metrics(run / "metrics.jsonl")] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    files = [open_tensors(run / "model.safetensors") for run in (one, two)]
    for name in files[0].tensors:
        assert_close(files[1].read(name), files[0].read(name), rtol=2e-3, atol=2e-4)
