"""Without a home everything works that needs none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdscratch import home
from sdscratch.checkpoints import places
from sdscratch.checkpoints.hashing import hash_files
from sdscratch.errors import CheckpointError


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither $HOME nor an entry in the list of users, nor folders named by hand."""

    def nobody(path: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: nobody(None))
    monkeypatch.setattr(Path, "expanduser", lambda path: nobody(path) if str(path).startswith("~") else path)


def test_there_is_no_home(homeless: None) -> None:
    assert home.home() is None
    assert home.user_folder("XDG_CACHE_HOME", ".cache") is None
    assert home.expanded("~/x") == Path("~/x")
    assert places.cache_folder() is places.data_folder() is places.tokenizer_folder() is None


def test_folders_that_are_named_count_without_a_home(
    homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert places.cache_folder() == tmp_path / "sdscratch"


def test_files_are_found_and_hashed_without_a_home(homeless: None, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x")
    assert places.find_local(str(tmp_path / "a.safetensors")) == tmp_path / "a.safetensors"
    assert places.find_lora(str(tmp_path / "a.safetensors")) == tmp_path / "a.safetensors"
    assert len(hash_files([tmp_path / "a.safetensors"])) == 10
    assert "here, in ./weights; check" in str(places.missing("nosuch"))
    with pytest.raises(CheckpointError, match=r"here, in \./loras; check"):
        places.find_lora("nosuch")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such variable")
def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    assert home.home() is None or home.home() != Path()


def test_the_embedded_model_is_told_in_a_container_without_users(tmp_path: Path) -> None:
    command = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    probe = [*command, "true"]
    if sys.platform != "linux" or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system makes no such container")
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    }
    result = subprocess.run(
        [*command, sys.executable, "-m", "sdscratch", "info", "default"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "U-Net" in result.stdout


def test_an_empty_variable_is_no_home_and_not_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "")
    assert home.home() is None
    assert home.expanded("~/x") == Path("~/x")
    assert home.expanded("~") == Path("~")
    assert home.user_folder("XDG_CACHE_HOME", ".cache") is None
