"""A checkpoint of full size: converted bit by bit, in little memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import open_model
from sdscratch.models.config import SD1
from support.checkpoints import full_size_checkpoint
from support.cli import sdscratch
from support.memory import peak_anonymous
from support.tokenizers import clip_tokenizer, write_folder

pytestmark = pytest.mark.full

LARGEST = 49408 * 768 * 4  # bytes: the table of token embeddings
TORCH_ITSELF = 350e6

CONVERT = """
from sdscratch.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
LOAD = """
import sys, torch
from sdscratch.checkpoints.model import open_model
model = open_model(sys.argv[1])
networks = [model.load(part, "cpu", torch.bfloat16) for part in ("text", "unet", "decoder")]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Room for some files of 4 GB, given back at once."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_ckpt_to_ldm_to_diffusers_to_ldm_is_bit_identical(folder: Path) -> None:
    source = full_size_checkpoint("ckpt")
    tokenizer = write_folder(folder / "clip", clip_tokenizer())
    first, middle, last = folder / "first.safetensors", folder / "middle", folder / "last.safetensors"
    for arguments in (
        (source, first, "--tokenizer", tokenizer),
        (first, middle, "--to", "diffusers"),
        (middle, last),
    ):
        result = sdscratch("convert-weights", *arguments, "--json")
        assert result.code == 0, result.stderr
        assert (json.loads(result.stdout)["tensors"], json.loads(result.stdout)["verified"]) == (1130, True)
    before, after = open_model(source), open_model(last)
    assert after.config == SD1
    for weight in weights(SD1):
        assert before.info(weight).dtype == after.info(weight).dtype
        assert torch.equal(before.read(weight).view(torch.int32), after.read(weight).view(torch.int32)), (
            weight.ldm
        )
    assert after.tokenizer.to_json() == clip_tokenizer().to_json()


def test_conversion_needs_the_memory_of_one_tensor(folder: Path) -> None:
    arguments = (
        "convert-weights",
        full_size_checkpoint("ckpt"),
        folder / "out.safetensors",
        "--dtype",
        "float16",
        "-q",
    )
    assert peak_anonymous(CONVERT, *arguments) < TORCH_ITSELF + 2 * LARGEST


def test_loading_needs_the_memory_of_the_networks(folder: Path) -> None:
    parameters = sum(torch.Size(weight.shape).numel() for weight in weights(SD1) if weight.part != "encoder")
    assert peak_anonymous(LOAD, full_size_checkpoint()) < 2 * parameters + TORCH_ITSELF
