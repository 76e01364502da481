"""Random weights: the same in memory and as a file, and a model that every reader takes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdscratch.bench.random_model import random_model, write_random_model
from sdscratch.checkpoints.model import Part, open_model
from support.checkpoints import TINY


@pytest.mark.parametrize("part", ["text", "unet", "encoder", "decoder"])
def test_a_file_holds_the_weights_that_are_drawn_in_memory(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "random.safetensors"
    write_random_model(path, TINY)
    files = open_model(path)
    assert files.config == TINY
    read = files.load(part, "cpu", torch.float32).state_dict()
    drawn = random_model("random", TINY).load(part, "cpu", torch.float32).state_dict()
    assert read.keys() == drawn.keys()
    assert all(torch.equal(read[name], drawn[name]) for name in drawn)
    assert any(float(value.std()) > 0 for value in drawn.values() if value.dim() > 1)
