"""CLIP's table where other programs keep it: found by its content, kept, and nothing else taken for it."""

from __future__ import annotations

import gzip
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdscratch.checkpoints import clip_table, tokenizers
from sdscratch.checkpoints.clip_table import find_clip, merges_hash
from sdscratch.checkpoints.model import open_model
from sdscratch.text.files import read_merges
from sdscratch.text.tokenizer import Tokenizer
from support.checkpoints import MERGES, TINY, ldm_tensors, write_ldm
from support.shared import shared_path
from support.tokenizers import tiny_tokenizer, write_folder

TABLE = "bpe_simple_vocab_16e6.txt.gz"
MODEL = "models/x.safetensors"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it, on which the tiny tokenizer counts as CLIP's."""
    names = [f"{tool}_{end}" for tool in clip_table.TOOLS for end in clip_table.ENDS]
    caches = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_HOME")
    for variable in (*names, *caches, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    monkeypatch.setattr(clip_table, "CLIP_MERGES", merges_hash(tiny_tokenizer().vocabulary.merges))
    return tmp_path


def put_folder(path: Path) -> Path:
    """As transformers saves a tokenizer."""
    return write_folder(path, tiny_tokenizer())


def put_table(path: Path) -> Path:
    """As OpenAI publishes theirs; without the header's name, which stands for a longer table."""
    lines = ["#version: 0.2", *map(" ".join, tiny_tokenizer().vocabulary.merges)]
    path.mkdir(parents=True)
    (path / TABLE).write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def found(machine: Path, model: str = MODEL) -> bool:
    tokenizer = find_clip(machine / model)
    assert tokenizer is None or tokenizer.to_json() == tiny_tokenizer().to_json()
    return tokenizer is not None


SNAPSHOT = "models--someone--sd/snapshots/0123"
PLACES: dict[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    f"home/.cache/huggingface/hub/{SNAPSHOT}/tokenizer": (put_folder, {}),
    f"home/.cache/huggingface/hub/{SNAPSHOT}": (put_folder, {}),
    f"cache/huggingface/hub/{SNAPSHOT}/tokenizer_2": (put_folder, {"XDG_CACHE_HOME": "cache"}),
    f"hf/hub/{SNAPSHOT}/tokenizer": (put_folder, {"HF_HOME": "hf"}),
    f"elsewhere/{SNAPSHOT}/tokenizer": (put_folder, {"HF_HUB_CACHE": "elsewhere"}),
    f"old/{SNAPSHOT}": (put_table, {"HUGGINGFACE_HUB_CACHE": "old"}),
    "site-packages/open_clip": (put_table, {}),
    "site-packages/clip": (put_table, {}),
    "apps/comfy-of-mine/comfy/sd1_tokenizer": (put_folder, {"COMFYUI_PATH": "apps/comfy-of-mine"}),
    "apps/portable/python_embeded/Lib/site-packages/clip": (
        put_table,
        {"COMFYUI_ROOT": "apps/portable/ComfyUI"},
    ),
    "apps/ui/venv/lib/python3.10/site-packages/open_clip": (put_table, {"WEBUI_DIR": "apps/ui"}),
    "apps/forge/backend/huggingface/someone/sd/tokenizer": (put_folder, {"FORGE_PATH": "apps/forge"}),
    "home/ComfyUI/comfy/sd1_tokenizer": (put_folder, {}),
    "home/stable-diffusion-webui/venv/Lib/site-packages/clip": (put_table, {}),
    "comfy/sd1_tokenizer": (put_folder, {}),  # around the model
    "models": (put_table, {}),  # beside it
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_where_people_have_it_and_kept(
    machine: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    assert not found(machine)
    put, variables = PLACES[place]
    for name, value in variables.items():
        monkeypatch.setenv(name, str(machine / value))
    folder = put(machine / place)
    importlib.invalidate_caches()
    modules = set(sys.modules)
    assert found(machine)
    assert not {"open_clip", "clip"} & (set(sys.modules) - modules)  # looked at, never imported
    for file in folder.iterdir():
        file.unlink()
    assert found(machine, "another/place/y.safetensors")  # of the user's cache


def test_any_package_that_lists_it_among_its_files_has_it(machine: Path) -> None:
    packages = machine / "site-packages"
    put_table(packages / "somebodys/assets")
    info = packages / "somebodys_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-model\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"somebodys/__init__.py,,\nsomebodys/assets/{TABLE},sha256=abc,123\n")
    assert found(machine)


def test_another_table_is_not_taken_for_it_nor_kept(machine: Path) -> None:
    folder = put_folder(machine / "models")
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join([*merges[:1], *reversed(merges[1:])]))
    (machine / "comfy").mkdir()
    (machine / "comfy/sd1_tokenizer").write_text("no folder")
    (machine / f"models/{TABLE}").write_bytes(b"\x1f\x8b damaged")
    (machine / "tokenizer.json").write_text("[]")
    assert not found(machine)
    assert not (machine / "home/.cache/sdscratch").exists()


def test_a_damaged_cache_is_looked_past(machine: Path) -> None:
    put_folder(machine / "models")
    kept = machine / "home/.cache/sdscratch/clip-merges.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("a b\n")
    assert found(machine)


def test_a_model_without_tokenizer_gets_it_without_asking_the_hub(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers, "CLIP_VOCABULARY", TINY.text.vocabulary)
    monkeypatch.setattr(tokenizers.hub, "fetch_tokenizer", None)

    small = Tokenizer.from_merges(MERGES)
    monkeypatch.setattr(clip_table, "CLIP_MERGES", merges_hash(small.vocabulary.merges))
    write_folder(machine / "home/ComfyUI/comfy/sd1_tokenizer", small)
    bare = write_ldm(machine / "bare.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})
    assert open_model(bare).tokenizer.vocabulary.merges == small.vocabulary.merges


def test_the_hash_is_that_of_clips_own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert merges_hash(read_merges(shared_path("clip", TABLE))) == clip_table.CLIP_MERGES
