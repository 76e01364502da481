"""What prompts, samplers and add-ons cannot mean, as it is typed: one sentence, its code, and no picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from support.cli import sdscratch

STEM = "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
FILES = {
    "wide": {"emb_params": torch.zeros(1, 768)},
    "half": {f"{STEM}.lokr_w1": torch.zeros(4, 4), f"{STEM}.lokr_w2_a": torch.zeros(4, 2)},
    "shape": {f"{STEM}.lokr_w1": torch.zeros(4, 4), f"{STEM}.lokr_w2": torch.zeros(4, 5)},
    "sdxl": {
        "first_stage_model.decoder.conv_in.weight": torch.zeros(512, 4, 3, 3),
        "conditioner.embedders.1.model.token_embedding.weight": torch.zeros(8, 1280),
    },
}
CASES: dict[str, tuple[list[str], int, str]] = {
    "a step out of range": (["a [dog:cat:99]"], 2, "'[dog:cat:99]' changes at 99"),
    "an embedding of another width": (
        ["wide", "--embedding", "wide.safetensors"],
        3,
        "of 768 numbers a vector",
    ),
    "half a LoKr": (["a dog", "--lora", "half.safetensors"], 3, "lacks the other half of"),
    "a LoKr of another shape": (["a dog", "--lora", "shape.safetensors"], 3, "does not fit [16, 16]"),
    "a VAE for SDXL": (["a dog", "--vae", "sdxl.safetensors"], 3, "is an SDXL model"),
    "sigmas that rise": (["a dog", "--sigmas", "14,2,3,0"], 2, "but 3 comes after 2"),
    "a tool that nobody knows": (["a dog", "--like", "midjourney"], 2, "must be one of sdscratch, a1111"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_by_name(
    case: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, tensors in FILES.items():
        save_file(tensors, f"{name}.safetensors")
    words, code, said = CASES[case]
    result = sdscratch("txt2img", *words, "-m", tiny_model, "--steps", 3, "-q", "-o", "x.png")
    assert result.code == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path("x.png").exists()


def test_an_unclosed_bracket_is_text(tiny_model: Path, tmp_path: Path) -> None:
    words = ("-m", tiny_model, "--steps", 1, "--size", "64x64", "-q", "-o", tmp_path / "x.png")
    assert sdscratch("txt2img", "a [dog:cat", *words).code == 0
