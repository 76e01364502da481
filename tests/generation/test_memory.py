"""How much memory full-size pictures take on a CPU, from a float32 file of 4.3 GB."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.model import open_model
from support.checkpoints import full_size_checkpoint
from support.memory import peak_anonymous
from support.tokenizers import clip_tokenizer, write_folder

pytestmark = pytest.mark.full

DRAW = """
from sdscratch.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize(
    ("size", "options", "ceiling"),
    [
        ("512x512", [], 2.8e9),
        ("512x512", ["--low-memory"], 2.4e9),
        ("1024x1024", [], 6e9),
        ("1024x1024", ["--low-memory"], 3.2e9),
    ],
)
def test_a_picture_needs_little_more_than_the_weights(
    size: str, options: list[str], ceiling: float, tmp_path: Path
) -> None:
    words = ["-m", full_size_checkpoint(), "--tokenizer", write_folder(tmp_path / "clip", clip_tokenizer())]
    words += ["--dtype", "bfloat16", "--device", "cpu", "--steps", 1, "--seed", 1, "-q", "--size", size]
    assert (
        peak_anonymous(DRAW, "txt2img", "an astronaut", *words, *options, "-o", tmp_path / "a.png") < ceiling
    )


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in int8."""
    folder = tmp_path_factory.mktemp("int8")
    tokenizer = write_folder(folder / "clip", clip_tokenizer())
    model = open_model(full_size_checkpoint(), tokenizer=str(tokenizer))
    return convert(model, folder / "int8.safetensors", "ldm", dtype="int8", verify=False).path


@pytest.mark.parametrize(("options", "ceiling"), [([], 1.9e9), (["--low-memory"], 1.5e9)])
def test_with_weights_of_8_bits_a_picture_needs_less(
    options: list[str], ceiling: float, eight_bits: Path, tmp_path: Path
) -> None:
    words = ["-m", eight_bits, "--device", "cpu", "--steps", 1, "--cfg-scale", 1, "--seed", 1, "-q"]
    words += ["--size", "512x512", *options, "-o", tmp_path / "a.png"]
    peak = peak_anonymous(DRAW, "txt2img", "an astronaut", *words)
    print(f"{peak / 1e9:.2f} GB")
    assert peak < ceiling
