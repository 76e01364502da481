"""Textual inversion in every form of file gives the same vectors; what is none, or too wide, is named."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from torch import Tensor, nn

from sdscratch.addons.embedding import bundled_embeddings, open_embedding, read_embedding
from sdscratch.checkpoints.places import data_folder, find_embedding, known_embeddings
from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.reader import open_tensors

VECTORS = torch.randn(3, 768, generator=torch.Generator().manual_seed(0))


def web_ui(vectors: Tensor) -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "zorb", "step": 900,
        "sd_checkpoint": "7460a6fa", "sd_checkpoint_name": "model",
    }  # fmt: skip


def of_2022(vectors: Tensor) -> dict[str, Any]:
    parameters = nn.ParameterDict({"*": nn.Parameter(vectors, requires_grad=False)})
    return {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters}


def card_record(vectors: Tensor) -> str:
    record = web_ui(vectors)
    record["string_to_param"] = {"*": {"TORCHTENSOR": vectors.tolist()}}
    return json.dumps(record)


def text_card(path: Path, vectors: Tensor) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a picture")
    info.add_text("sd-ti-embedding", base64.b64encode(card_record(vectors).encode()).decode())
    Image.new("RGB", (64, 64), (90, 120, 30)).save(path, pnginfo=info)


def hidden_card(path: Path, vectors: Tensor) -> None:
    """As the web UI hides it: low and high halves of the bytes beside the picture, four bits a channel."""
    height, depth = 96, 3
    packed = np.frombuffer(zlib.compress(card_record(vectors).encode(), 9), np.uint8)

    def block(halves: np.ndarray) -> np.ndarray:
        size = -(-len(halves) // (height * depth)) * height * depth
        state, mask = 0, np.empty(size, np.uint8)
        for index in range(size):
            state = (1664525 * state + 1013904223) % (1 << 32)
            mask[index] = (state % 255) & 0x0F
        # the high bits are drawing, and never 0 in the outer columns
        return (np.resize(halves, size) ^ mask | 0x50).reshape(height, -1, depth)

    low, high = block(packed & 0x0F), block(packed >> 4)
    black = np.zeros((height, 1, depth), np.uint8)
    picture = np.full((height, 80, depth), 0x37, np.uint8)
    whole = np.concatenate([low, black, picture, black, high], axis=1)
    framed = np.pad(whole, ((5, 2), (4, 3), (0, 0)))
    Image.fromarray(framed).save(path, lossless=True)


Write = Callable[[Path, Tensor], Any]
FORMS: dict[str, tuple[str, Write]] = {
    "web UI": ("zorb.pt", lambda path, vectors: torch.save(web_ui(vectors), path)),
    "web UI of 2022": ("zorb.pt", lambda path, vectors: torch.save(of_2022(vectors), path)),
    "diffusers": ("zorb.bin", lambda path, vectors: torch.save({"<zorb>": vectors}, path)),
    "diffusers, safe": ("zorb.safetensors", lambda path, vectors: save_file({"<zorb>": vectors}, path)),
    "kohya": ("zorb.safetensors", lambda path, vectors: save_file({"emb_params": vectors}, path)),
    "SDXL": (
        "zorb.safetensors",
        lambda path, vectors: save_file({"clip_g": torch.zeros(3, 1280), "clip_l": vectors}, path),
    ),
    "a list": (
        "zorb.pt",
        lambda path, vectors: torch.save(
            [{"a": vectors[:1]}, {"g": torch.ones(2, 1280), "b": vectors[1:]}], path
        ),
    ),
    "a card": ("zorb.png", text_card),
    "a card, hidden": ("zorb.png", hidden_card),
    "a card, hidden, WebP": ("zorb.webp", hidden_card),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_vectors(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    write(tmp_path / name, VECTORS)
    embedding = open_embedding(str(tmp_path / name), 768)
    assert (embedding.name, embedding.count, embedding.width) == ("zorb", 3, 768)
    torch.testing.assert_close(embedding.vectors, VECTORS, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_diffusers_files_say_their_token(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    write(tmp_path / name, VECTORS)
    expected = "<zorb>" if form.startswith("diffusers") else None
    assert open_embedding(str(tmp_path / name), 768).token == expected


def test_one_vector_may_have_one_dimension_and_any_type(tmp_path: Path) -> None:
    torch.save({"<zorb>": VECTORS[0].half()}, tmp_path / "z.bin")
    embedding = open_embedding(str(tmp_path / "z.bin"), 768)
    assert embedding.vectors.shape == (1, 768)
    torch.testing.assert_close(embedding.vectors[0], VECTORS[0].half().float(), rtol=0, atol=0)


def test_bundles_in_a_lora_are_found_by_their_names(tmp_path: Path) -> None:
    other = torch.randn(1, 768)
    tensors = {
        "bundle_emb.zorb.string_to_param.*": VECTORS,
        "bundle_emb.blick.clip_l": other,
        "bundle_emb.blick.clip_g": torch.zeros(1, 1280),
        "lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    found = {
        each.name: each.vectors for each in bundled_embeddings(open_tensors(tmp_path / "lora.safetensors"))
    }
    assert found.keys() == {"zorb", "blick"}
    torch.testing.assert_close(found["zorb"], VECTORS, rtol=0, atol=0)
    torch.testing.assert_close(found["blick"], other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"emb_params": (2, 1024)}, r"1024 numbers a vector, made for Stable Diffusion 2\.x; .* 768"),
        ({"clip_g": (2, 1280)}, "1280 numbers a vector, made for SDXL"),
        ({"<x>": (2, 1280)}, "made for SDXL"),
        ({"<x>": (2, 100)}, "made for another kind of model"),
        ({"a": (2, 768), "b": (1, 768)}, "holds 2 tensors"),
        ({"emb_params": (2, 3, 768)}, "emb_params is no list of vectors"),
        ({"emb_params": (0, 768)}, "no list of vectors"),
        ({"emb_params": (1001, 768)}, "1001 vectors"),
        ({"x.lora_down.weight": (2, 4), "lora_unet_x.lora_down.weight": (4, 2)}, "is a LoRA"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_for_the_model_is_named(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    path = tmp_path / "zorb.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_embedding(str(path), 768)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_and_integers_are_refused(tmp_path: Path) -> None:
    save_file({"emb_params": torch.full((1, 768), float("nan"))}, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        _ = read_embedding(tmp_path / "nan.safetensors").vectors
    save_file({"emb_params": torch.zeros(1, 768, dtype=torch.int64)}, tmp_path / "int.safetensors")
    with pytest.raises(CheckpointError, match="I64"):
        read_embedding(tmp_path / "int.safetensors")


def test_pictures_without_an_embedding_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pictures = {
        "noise": noise,
        "black": np.zeros((8, 8, 3), np.uint8),
        "grey": np.full((8, 8, 3), 99, np.uint8),
    }
    hidden_card(tmp_path / "cut.png", VECTORS)
    pictures["cut"] = np.asarray(Image.open(tmp_path / "cut.png"))[:40]
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        with pytest.raises(CheckpointError, match="picture without an embedding"):
            read_embedding(tmp_path / f"{name}.png")


def test_a_name_is_looked_up_here_and_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    users, here = data_folder() / "embeddings", Path("embeddings")
    for path in (
        users / "a.pt",
        users / "b.bin",
        here / "a.safetensors",
        here / "deep" / "c d.png",
        here / "x.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_embedding("a") == here / "a.safetensors"
    assert find_embedding("b") == find_embedding("b.bin") == users / "b.bin"
    assert known_embeddings() == {
        "a": here / "a.safetensors", "b": users / "b.bin", "c d": here / "deep" / "c d.png",
    }  # fmt: skip
    with pytest.raises(CheckpointError, match=r"no embedding z: .*\./embeddings"):
        find_embedding("z")
