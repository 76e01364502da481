"""`info` says what a file is: models, add-ons, pictures; for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

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


# --- Add-ons ---------------------------------------------------------------------------------------------

TRAINED = {
    "ss_sd_model_name": "v1-5.safetensors", "ss_new_sd_model_hash": "6ce0161689", "ss_epoch": "4",
    "ss_tag_frequency": json.dumps({"3_zorb": {"zorb": 12, " blue": 5}, "1_more": {"zorb": 2}}),
    "ss_clip_skip": "None", "ss_resolution": "(512, 768)",
}  # fmt: skip


def test_a_lora_says_how_it_was_trained_and_its_hashes(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "ink.safetensors", changes(targets()[:2]))
    save_file(load_file(path), path, TRAINED)
    found = facts(path)
    assert found["training"] == {
        "base_model": "v1-5.safetensors", "base_hash": "6ce0161689", "epochs": "4", "resolution": "512x768",
        "words": {"zorb": 14, "blue": 5},
    }  # fmt: skip
    data = path.read_bytes()
    assert found["hash"] == sha256(data).hexdigest()[:10]
    after_header = data[8 + int.from_bytes(data[:8], "little") :]
    assert found["autov3"] == sha256(after_header).hexdigest()[:12]
    text = sdscratch("info", path).stdout.decode()
    assert "zorb (14), blue (5)" in text
    assert found["autov3"] in text


def test_every_kind_is_told(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_proj_in"
    path = tmp_path / "ink.safetensors"
    norm = "lora_unet_down_blocks_0_resnets_0_norm1"
    tensors = {
        f"{name}.lokr_w1": torch.zeros(8, 8), f"{name}.lokr_w2_a": torch.zeros(8, 2),
        f"{name}.lokr_w2_b": torch.zeros(2, 8), f"{name}.alpha": torch.tensor(1.0),
        f"{name}.dora_scale": torch.zeros(64, 1), f"{norm}.b_norm": torch.zeros(16),
        "bundle_emb.zorb.emb_params": torch.zeros(3, 32), "lora_unet_x.what": torch.zeros(1),
    }  # fmt: skip
    save_file(tensors, path)
    lora = facts(path)["lora"]
    assert lora["kinds"] == {"DoRA upon LoKr": 1, "bias": 1}  # type: ignore[index]
    assert (lora["ranks"], lora["alphas"]) == ([2], [1.0])  # type: ignore[index]
    assert (lora["embeddings"], lora["unknown"]) == ({"zorb": 3}, ["lora_unet_x.what"])  # type: ignore[index]


def test_what_would_not_fit_a_model_is_told(tmp_path: Path, model: Path) -> None:
    path = write_lora(tmp_path / "ink.safetensors", changes(targets()))
    against = sdscratch("info", path, "--against", model, "--json")
    assert json.loads(against.stdout)["misfits"] == []
    tensors = load_file(path)
    first = next(name for name in tensors if name.endswith("lora_down.weight"))
    tensors[first] = torch.zeros(3, 7)
    save_file(tensors | {"lora_unet_up_blocks_9_conv.alpha": torch.tensor(1.0)}, path)
    misfits = json.loads(sdscratch("info", path, "--against", model, "--json").stdout)["misfits"]
    assert len(misfits) == 2
    assert "lora_unet_up_blocks_9_conv.alpha" in misfits
    assert any("does not fit" in text for text in misfits)
    assert "does not fit" in sdscratch("info", path, "--against", model).stdout.decode()
    for width, count in ((32, 0), (768, 1)):
        save_file({"emb_params": torch.zeros(2, width)}, tmp_path / "zorb.safetensors")
        told = sdscratch("info", tmp_path / "zorb.safetensors", "--against", model, "--json")
        assert len(json.loads(told.stdout)["misfits"]) == count
        embedding = json.loads(told.stdout)["embedding"]
        assert (embedding["name"], embedding["vectors"], embedding["width"]) == ("zorb", 2, width)


def test_a_vae_is_told_and_whether_it_fits(tmp_path: Path, model: Path) -> None:
    vae = {name: t for name, t in ldm_tensors().items() if name.startswith("first_stage_model.")}
    save_file(vae, tmp_path / "vae.safetensors")
    told = json.loads(sdscratch("info", tmp_path / "vae.safetensors", "--against", model, "--json").stdout)
    assert (told["what"], told["misfits"]) == ("a VAE alone", [])
    save_file(dict(list(vae.items())[1:]), tmp_path / "vae.safetensors")
    told = json.loads(sdscratch("info", tmp_path / "vae.safetensors", "--against", model, "--json").stdout)
    assert len(told["misfits"]) == 1


def test_a_vaes_folder_is_told(tmp_path: Path, model: Path) -> None:
    folder = write_diffusers(tmp_path / "folder", TINY, tokenizer=tiny_tokenizer()) / "vae"
    told = json.loads(sdscratch("info", folder, "--against", model, "--json").stdout)
    assert (told["what"], told["misfits"]) == ("the VAE of a diffusers folder", [])
    assert "all of it fits" in sdscratch("info", folder, "--against", model).stdout.decode()
