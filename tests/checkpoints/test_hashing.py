"""Hashes of files, as CivitAI counts them, remembered between runs and processes."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdscratch.checkpoints.hashing import autov3, digest_files, is_known, old_hash
from sdscratch.errors import CheckpointError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sdscratch" / "hashes.json"


def test_autov3_is_of_the_tensors_alone(tmp_path: Path) -> None:
    values = {"a": torch.arange(6.0), "b": torch.ones(3)}
    save_file(values, tmp_path / "a.safetensors")
    save_file(values, tmp_path / "b.safetensors", {"ss_steps": "100"})
    data = (tmp_path / "a.safetensors").read_bytes()
    after = data[8 + int.from_bytes(data[:8], "little") :]
    assert autov3(tmp_path / "a.safetensors") == hashlib.sha256(after).hexdigest()[:12]
    assert autov3(tmp_path / "b.safetensors") == autov3(tmp_path / "a.safetensors")
    assert digest_files([tmp_path / "a.safetensors"]) == hashlib.sha256(data).hexdigest()
    (tmp_path / "c.pt").write_bytes(b"PK no safetensors")
    assert autov3(tmp_path / "c.pt") is None


def test_the_hash_of_before_2022_is_of_64_kb_behind_the_first_megabyte(tmp_path: Path) -> None:
    data = bytes(index * 7 % 251 for index in range(0x118000))
    (tmp_path / "a.ckpt").write_bytes(data)
    assert old_hash(tmp_path / "a.ckpt") == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


def test_what_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    assert not is_known(path)
    assert digest_files([path]) == hashlib.sha256(b"one").hexdigest()
    assert is_known(path)
    path.write_bytes(b"three")
    assert not is_known(path)
    assert digest_files([path]) == hashlib.sha256(b"three").hexdigest()


def test_who_remembers_at_once_loses_nothing(tmp_path: Path, cache: Path) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(24)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: digest_files([path]), paths))
    assert all(map(is_known, paths))
    assert len(json.loads(cache.read_text())) == len(paths)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read"):
        autov3(tmp_path / "gone.safetensors")
