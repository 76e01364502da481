"""A LoRA of Stable Diffusion 1.x's full size, trained on an ordinary machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdscratch.addons.lora import open_lora
from sdscratch.models.config import SD1
from sdscratch.training.run.lora_options import LoraPlan
from support.checkpoints import full_size_checkpoint, tiny_tokenizer
from support.shapes_folder import write_pictures


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
    process = subprocess.Popen([sys.executable, *command])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert used.ru_maxrss * 1024 <= 12e9, "resident, file pages included"
    assert set(open_lora(tmp_path / "run" / "lora.safetensors", SD1).modules) == set(LoraPlan().chosen(SD1))
