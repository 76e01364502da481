"""A LoRA of Stable Diffusion 1.x's full size, trained on an ordinary machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdscratch.addons.lora import open_lora
from sdscratch.models.config import SD1
from sdscratch.training.run.lora_options import LoraPlan
from support.checkpoints import full_size_checkpoint, tiny_tokenizer
from support.shapes_folder import write_pictures

# Runs a command and prints its peak. It stands between, as a process counts what its parent held when it
# began: that of this test's own, which has held whole models, would be taken for the training's.
MEASURED = (
    "import resource, subprocess, sys\n"
    "subprocess.run(sys.argv[1:], check=True)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
)


@pytest.mark.full
def test_steps_at_512_pixels_take_at_most_12_gb(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, side=512)
    (tmp_path / "tokenizer").mkdir()
    for name, text in tiny_tokenizer().to_files().items():
        (tmp_path / "tokenizer" / name).write_text(text)
    options = {
        "model": full_size_checkpoint(),
        "tokenizer": tmp_path / "tokenizer",
        "output": tmp_path / "run",
        "resolution": 512,
        "train-batch-size": 1,
        "max-train-steps": 2,
        "mixed-precision": "bf16",
        "device": "cpu",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = ["-m", "sdscratch", "train", "lora", str(pictures), "--gradient-checkpointing", *words]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak = int(ran.stdout.splitlines()[-1]) * 1024
    assert 4e9 < peak <= 12e9, "resident, file pages included"
    assert set(open_lora(tmp_path / "run" / "lora.safetensors", SD1).modules) == set(LoraPlan().chosen(SD1))
