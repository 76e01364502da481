"""The wheel and the source distribution: the same bytes at every building, whole, sound where installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from support.absent import absent
from support.builds import build, copied, pythons
from support.tested_set import ROOT, run_time_requirements

KINDS = ("wheel", "sdist")
PICTURE = (
    "txt2img",
    "an owl",
    "--seed",
    "0",
    "--device",
    "cpu",
    "--dtype",
    "float32",
    "-o",
    "owl.png",
    "--overwrite",
)
WITHOUT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS")


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


def clean(**more: str) -> dict[str, str]:
    """The environment of somebody who has nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in WITHOUT}
    return {**kept, "HF_HUB_OFFLINE": "1", "PIP_NO_INPUT": "1", **more}


def installed(python: str, folder: Path, *arguments: object) -> Path:
    """A new environment in which pip has installed this; skips where the registry cannot be reached."""
    made = run(python, "-m", "venv", folder, env=clean())
    assert made.returncode == 0, made.stderr
    ours = folder / "bin" / "python"
    done = run(ours, "-m", "pip", "install", "--quiet", *arguments, env=clean())
    if done.returncode:
        absent(f"a package registry that has all that is needed for {python} ({done.stderr[-300:]})")
    return ours


def speaks(python: Path, away: Path) -> None:
    """The installed command runs outside the checkout, is not this checkout's, and its files are sound."""
    command = python.parent / "sdscratch"
    for words, said in ((["--help"], "txt2img"), (["--version"], "sdscratch"), (["schedule"], ".")):
        told = run(command, *words, cwd=away, env=clean())
        assert (told.returncode, said in told.stdout) == (0, True), told.stderr
    where = run(python, "-c", "import sdscratch; print(sdscratch.__file__)", cwd=away, env=clean())
    package = Path(where.stdout.strip()).parent
    assert package.is_relative_to(python.parents[1]), where.stderr
    compiled = run(python, "-W", "error", "-m", "compileall", "-q", "-f", package, cwd=away, env=clean())
    assert compiled.returncode == 0, compiled.stdout


def draws(python: Path, away: Path) -> bytes:
    """The pixels of a picture by the built-in model."""
    drawn = run(python.parent / "sdscratch", *PICTURE, cwd=away, env=clean(OMP_NUM_THREADS="1"))
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(away / "owl.png") as picture:
        assert picture.size == (128, 128)
        return picture.tobytes()


@pytest.mark.full
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_both_packages_install_in_clean_environments(which: str, tmp_path: Path) -> None:
    """With all that they need at the tested versions, from a registry; pip builds the source distribution.

    The newest Python goes without torch, of which a registry may have gigabytes for it, and does what needs
    none; with SDSCRATCH_TORCH_EVERYWHERE it draws, too.
    """
    found = pythons()
    version = min(found) if which == "oldest" else max(found)
    if which == "newest" and len(found) == 1:
        pytest.skip("there is one Python here, the oldest")
    with_torch = which == "oldest" or "SDSCRATCH_TORCH_EVERYWHERE" in os.environ
    wheel, sdist = (build(ROOT, kind, tmp_path / "dist") for kind in KINDS)
    away = tmp_path / "away"
    away.mkdir()
    needed = [str(each) for each in run_time_requirements() if with_torch or each.name != "torch"]
    python = installed(found[version], tmp_path / "wheel", "-c", ROOT / "docs" / "constraints.txt", *needed)
    put = run(
        python, "-m", "pip", "install", "--quiet", *([] if with_torch else ["--no-deps"]), wheel, env=clean()
    )
    assert put.returncode == 0, put.stderr
    speaks(python, away)
    # torch and the rest once more would take minutes: of the wheel's environment all but sdscratch
    again = installed(found[version], tmp_path / "sdist", "--no-deps", sdist)
    (own,) = (tmp_path / "sdist").glob("lib/python*/site-packages")
    (theirs,) = (tmp_path / "wheel").glob("lib/python*/site-packages")
    (own / "others.pth").write_text(f"{theirs}\n")
    speaks(again, away)
    if with_torch:
        assert draws(python, away) == draws(again, away)
