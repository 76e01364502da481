"""`info` says what a file is: models, add-ons, pictures; for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdscratch.images import Record, save_picture
from support.checkpoints import (
    TINY,
    ema_tensors,
    ldm_extras,
    ldm_tensors,
    self_contained,
    tiny_tokenizer,
    write_ckpt,
    write_diffusers,
    write_ldm,
)
from support.cli import sdscratch
from support.loras import changes, targets, write_lora
from support.pictures import record

OPTIONS = record(
    prompt="a red dog", negative_prompt="blurry", width=64, height=96, steps=7, cfg_scale=4.5, seed=3,
    sampler="euler",
).options  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_ldm(tmp_path / "model.safetensors", ldm_tensors() | ldm_extras(), self_contained())


def facts(path: Path) -> dict[str, object]:
    result = sdscratch("info", path, "--json")
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_a_model_is_told_in_lines_of_at_most_80_columns(model: Path) -> None:
    result = sdscratch("info", model)
    assert result.code == 0
    assert all(len(line) <= 80 for line in result.lines if str(model.parent) not in line)
    text = result.stdout.decode()
    for part in ("one file, LDM's names", "U-Net", "2,162,996 in F32", "512×512, 30 steps", "inside", "hash"):
        assert part in text


def test_a_models_facts_as_json(model: Path) -> None:
    found = facts(model)
    assert found["layout"] == "ldm"
    assert found["config"] == json.loads(TINY.to_json())
    assert found["tokenizer"] is True
    assert found["ema"] is False
    assert found["parameters"] == sum(tensor.numel() for tensor in ldm_tensors().values())
    assert set(found["dropped"]) == set(ldm_extras())  # type: ignore[call-overload]
    assert "sdscratch.tokenizer" not in found["metadata"]  # type: ignore[operator]


def test_averages_and_types_are_told(tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in ldm_tensors().items()} | ema_tensors()
    found = facts(write_ldm(tmp_path / "model.safetensors", tensors, {"sdscratch.config": TINY.to_json()}))
    assert (found["ema"], found["tokenizer"]) == (True, False)
    assert found["parts"]["unet"]["dtypes"] == ["F16"]  # type: ignore[index]


def test_a_folder_is_a_model_too(tmp_path: Path) -> None:
    found = facts(write_diffusers(tmp_path / "folder", TINY, tokenizer=tiny_tokenizer()))
    assert (found["layout"], found["tokenizer"]) == ("diffusers", True)


@pytest.mark.parametrize(
    ("name", "shape", "what"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", (4, 8), "a LoRA in kohya's layout"),
        ("emb_params", (2, 768), "a textual inversion embedding"),
        ("conditioner.embedders.0.x", (2,), "an SDXL model"),
        ("anything", (2, 3), "nothing that is known here"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_other_files_are_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], what: str, suffix: str
) -> None:
    path = tmp_path / f"file.{suffix}"
    tensors = {name: torch.zeros(shape)}
    write_ldm(path, tensors) if suffix == "safetensors" else write_ckpt(path, tensors)
    found = facts(path)
    assert (found["what"], found["tensors"]) == (what, 1)
    assert what in sdscratch("info", path).stdout.decode()


def test_a_lora_says_what_it_changes(tmp_path: Path) -> None:
    chosen = [weight for weight in targets() if "conv2" not in weight.name]
    path = write_lora(tmp_path / "ink.safetensors", changes(chosen, rank=4, alpha=2.0))
    convolutions = [weight for weight in chosen if weight.shape[2:] == (3, 3)]
    text = [weight for weight in chosen if weight.part == "text"]
    assert facts(path)["lora"] == {
        "network": "LoRA of linear layers and convolutions (LoCon)",
        "ranks": [4],
        "alphas": [2.0],
        "modules": len(chosen),
        "convolutions": len(convolutions),
        "parts": {"text": len(text), "unet": len(chosen) - len(text)},
        "kinds": {"LoRA": len(chosen)},
        "embeddings": {},
        "unknown": [],
    }
    lines = sdscratch("info", path).lines
    for row in ("network         LoRA of linear", "rank            4", "alpha           2", "  U-Net "):
        assert any(line.startswith(row) for line in lines), row
    assert facts(write_lora(tmp_path / "text.safetensors", changes(text), "PEFT"))["lora"] == {
        "network": "LoRA of linear layers",
        "ranks": [3],
        "alphas": [],
        "modules": len(text),
        "convolutions": 0,
        "parts": {"text": len(text)},
        "kinds": {"LoRA": len(text)},
        "embeddings": {},
        "unknown": [],
    }


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_says_how_it_was_made(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    made = Record("txt2img", OPTIONS, "tiny", "0123456789", "float32", "cpu")
    save_picture(Image.new("RGB", (64, 96)), path, made)
    found = facts(path)
    assert (found["kind"], found["tool"]) == ("image", "sdscratch")
    assert (found["width"], found["height"]) == (64, 96)
    assert found["record"] == json.loads(made.to_json())
    assert found["infotext"]["prompt"] == "a red dog"  # type: ignore[index]
    lines = sdscratch("info", path).stdout.decode()
    for part in ("64×96", "a red dog", "blurry", "euler", "0123456789"):
        assert part in lines


def test_a_picture_without_a_record_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (5, 7)).save(tmp_path / "plain.png")
    assert "does not say how it was made" in sdscratch("info", tmp_path / "plain.png").stdout.decode()


def test_the_web_uis_text_is_read(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(
        "parameters", "a dog\nNegative prompt: cat\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 8x8"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=text)
    found = facts(tmp_path / "theirs.png")
    assert found["infotext"]["parameters"]["Sampler"] == "Euler a"  # type: ignore[index]
    assert "Euler a" in sdscratch("info", tmp_path / "theirs.png").stdout.decode()


def test_what_a_file_is_called_does_not_matter(tmp_path: Path, model: Path) -> None:
    Image.new("RGB", (5, 7)).save(tmp_path / "model2.png")
    (tmp_path / "model2.png").rename(tmp_path / "model2.ckpt")
    model.rename(tmp_path / "picture.png")
    assert facts(tmp_path / "model2.ckpt")["what"] == "a picture"
    assert facts(tmp_path / "picture.png")["layout"] == "ldm"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nothing.safetensors", 3, "there is no model nothing.safetensors"),
        ("nothing.png", 4, "there is no picture nothing.png"),
        ("owner/name", 3, "there is no model owner/name"),
        ("empty.ckpt", 3, "is empty"),
        ("page.ckpt", 3, "a web page"),
        ("cut.png", 4, "cut.png"),
        ("incomplete.safetensors", 3, "the model is incomplete"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.ckpt").touch()
    Path("page.ckpt").write_text("<html>")
    Path("cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    write_ldm(Path("incomplete.safetensors"), dict(list(ldm_tensors().items())[:-3]), self_contained())
    result = sdscratch("info", name)
    assert result.code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_torch_is_not_imported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    tensors = {"emb_params": torch.zeros(2, 768)}
    write_ldm(path, tensors) if suffix == "safetensors" else write_ckpt(path, tensors)
    model = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), self_contained())
    for file in (path, model):
        check = (
            f"import sys; sys.argv = ['sdscratch', 'info', {str(file)!r}]\n"
            "from sdscratch.cli.app import main\n"
            "try: main()\n"
            "except SystemExit as end: sys.exit(99 if 'torch' in sys.modules else end.code)\n"
        )
        assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=False).returncode == 0


def test_a_broken_lora_is_told_in_one_sentence(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{name}.lora_down.weight": torch.zeros(4, 8), f"{name}.alpha": torch.zeros(2)}
    result = sdscratch("info", write_ldm(tmp_path / "lora.safetensors", tensors))
    assert result.code == 3
    assert f"{name}.alpha, which is no number" in result.stderr
