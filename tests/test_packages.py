"""The wheel and the source distribution: the same bytes at every building, whole, sound where installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.builds import build, copied
from support.tested_set import ROOT

KINDS = ("wheel", "sdist")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [str(each) for each in command], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Both packages, built from two copies that differ in all that is no content."""
    folder = tmp_path_factory.mktemp("twice")
    one = copied(folder / "one", small=True)
    other = copied(folder / "another folder with a longer name", small=True)
    for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
        os.utime(path, (10**9 + number, 10**9 - number))
        path.chmod(0o700 if path.is_dir() else 0o600)
    environments = ({"TZ": "UTC", "PYTHONHASHSEED": "1"}, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"})
    return {
        kind: (
            build(one, kind, folder / "made", **environments[0]),
            build(other, kind, folder / "made again", umask=0o077, **environments[1]),
        )
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_two_builds_are_the_same_bytes(twice: dict[str, tuple[Path, Path]], kind: str) -> None:
    one, other = twice[kind]
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_the_wheel_of_the_source_distribution_is_the_checkouts(
    twice: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    with tarfile.open(twice["sdist"][0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (sources,) = tmp_path.iterdir()
    assert build(sources, "wheel", tmp_path / "made").read_bytes() == twice["wheel"][0].read_bytes()


def test_the_wheel_holds_all_that_is_no_python_too(twice: dict[str, tuple[Path, Path]]) -> None:
    names = set(zipfile.ZipFile(twice["wheel"][0]).namelist())
    package = ROOT / "src" / "sdscratch"
    ours = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    weights = {f"sdscratch/weights/{name}.safetensors" for name in ("default", "default-taesd")}
    assert ours | weights <= names
    assert {"sdscratch/py.typed", "sdscratch/explain/templates/page.html"} <= names
    outside = {name for name in names - ours - weights if ".dist-info/" not in name}
    assert outside == {"sdscratch/weights/README.md"}


def test_the_source_distribution_holds_what_tests_and_docs_need(
    twice: dict[str, tuple[Path, Path]],
) -> None:
    with tarfile.open(twice["sdist"][0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"SECURITY.md", "LICENSE", "README.md", "Makefile", "pyproject.toml", "docs/constraints.txt"}
    assert wanted | {"tests/conftest.py", "weights/judge.safetensors"} <= names


def test_an_unpacked_wheel_runs_outside_the_checkout(
    twice: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    site, away = tmp_path / "site", tmp_path / "away"
    zipfile.ZipFile(twice["wheel"][0]).extractall(site)
    away.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    told = run(sys.executable, "-P", "-m", "sdscratch", "--help", cwd=away, env=environment)
    assert told.returncode == 0, told.stderr
    assert "txt2img" in told.stdout
    where = "import sdscratch; print(sdscratch.__file__)"
    said = run(sys.executable, "-P", "-c", where, cwd=away, env=environment)
    assert Path(said.stdout.strip()).is_relative_to(site)
    refused = run(sys.executable, "-P", "-m", "sdscratch", "info", "none.png", cwd=away, env=environment)
    assert (refused.returncode != 0, "Traceback" in refused.stderr) == (True, False)
