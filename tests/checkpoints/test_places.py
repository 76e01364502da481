"""Finding a model by what the user typed, and remembering what a file's hash is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.places import cache_folder, find_local, is_hub_id
from sdscratch.errors import CheckpointError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is also where we are."""
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    ("there", "typed"),
    [
        ("a.safetensors", "a.safetensors"),
        ("folder/a.ckpt", "folder/a.ckpt"),
        ("a.ckpt", "~/a.ckpt"),
        ("weights/a.safetensors", "a"),
        ("weights/a.safetensors", "a.safetensors"),
        ("weights/a.ckpt", "a"),
        ("weights/b/a.pt", "b/a"),
        (".local/share/sdscratch/models/a.safetensors", "a"),
        (".local/share/sdscratch/models/a/model_index.json", "a"),
    ],
)
def test_a_model_is_found_by_path_or_name(home: Path, there: str, typed: str) -> None:
    put(home / there)
    found = find_local(typed)
    assert found is not None
    assert (home / found).resolve() in ((home / there).resolve(), (home / there).resolve().parent)


def test_a_path_goes_before_a_name_and_the_working_folder_before_the_users(home: Path) -> None:
    users = put(home / ".local/share/sdscratch/models/a.safetensors")
    assert find_local("a") == users
    put(home / "weights/a.ckpt")
    assert find_local("a") == Path("weights/a.ckpt")
    put(home / "a")
    assert find_local("a") == Path("a")


@pytest.mark.parametrize("typed", ["", "nothing", "no/such/path", "a\0b", "x" * 5000, "~nobody-at-all/x"])
def test_what_is_not_there_is_said_in_one_sentence(typed: str) -> None:
    with pytest.raises(CheckpointError, match="there is no model") as caught:
        open_model(typed)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("runwayml/stable-diffusion-v1-5", True),
        ("someone/model.v2", True),
        ("someone/model.safetensors", False),
        ("someone/model.ckpt", False),
        ("model", False),
        ("a/b/c", False),
        ("./a", False),
        ("../a", False),
        ("/a", False),
        ("a/", False),
        ("a b/c", False),
    ],
)
def test_hub_ids_are_told_from_paths(name: str, is_one: bool) -> None:
    assert is_hub_id(name) is is_one


def test_a_relative_folder_in_the_environment_does_not_count(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_folder() == home / ".cache" / "sdscratch"


def test_a_hash_is_remembered_until_the_file_changes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(home / "model.ckpt")
    first = hash_files([path])
    assert first == hashlib.sha256(b"x").hexdigest()[:10]
    with monkeypatch.context() as patch:
        patch.setattr("sdscratch.checkpoints.hashing._hash", lambda *_: pytest.fail("read again"))
        assert hash_files([path]) == first
    path.write_bytes(b"y")
    os.utime(path, (1, 1))
    assert hash_files([path]) == hashlib.sha256(b"y").hexdigest()[:10]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_broken_cache_is_an_empty_one(home: Path, content: str) -> None:
    put(home / ".cache/sdscratch/hashes.json").write_text(content)
    assert hash_files([put(home / "model.ckpt")]) == hashlib.sha256(b"x").hexdigest()[:10]


def test_a_cache_that_cannot_be_written_does_no_harm(home: Path) -> None:
    put(home / ".cache")  # a file, where the folder should be
    assert hash_files([put(home / "model.ckpt")]) == hashlib.sha256(b"x").hexdigest()[:10]
