"""The package built from copies of the sources, and the Pythons that there are to install it with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.tested_set import ROOT

__all__ = ["build", "copied", "pythons"]

SOURCES = ("src", "tests", "docs", "weights", "README.md", "SECURITY.md", "LICENSE", "Makefile")
BESIDE = ("pyproject.toml", ".gitignore")
HEAVY = 2**14  # bytes of a file that is cut in a small copy: packing 40 MB takes seconds


def copied(folder: Path, *, small: bool) -> Path:
    """The sources in a new folder; `small` with the beginnings of large files alone."""
    folder.mkdir(parents=True)
    for name in (*SOURCES, *BESIDE):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    for path in folder.rglob("*"):
        if small and path.is_file() and path.stat().st_size > HEAVY and path.suffix != ".py":
            path.write_bytes(path.read_bytes()[:HEAVY])
    return folder


def build(sources: Path, kind: str, into: Path, *, umask: int = 0o022, **environment: str) -> Path:
    """A "wheel" or an "sdist" of these sources, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)],
        cwd=sources,
        env={**os.environ, **environment},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (path for path in into.iterdir() if (path.suffix == ".whl") == (kind == "wheel"))
    return made


def pythons() -> dict[tuple[int, int], str]:
    """Every CPython from 3.11 on that starts: those on the path, pyenv's, and the one that runs this."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *pyenv.glob("versions/*/bin")]
    found = {sys.version_info[:2]: sys.executable}
    for folder in folders:
        for path in folder.glob("python3.*") if folder.is_dir() else ():
            named = re.fullmatch(r"python3\.(\d+)", path.name)
            version = (3, int(named[1])) if named else (0, 0)
            if version >= (3, 11) and version not in found and starts(path, version):
                found[version] = str(path)
    return dict(sorted(found.items()))


def starts(path: Path, version: tuple[int, int]) -> bool:
    """Whether it is that Python, and can make an environment (launchers of pyenv's may lead nowhere)."""
    said = "import sys, ssl, venv, ensurepip; print(sys.implementation.name, *sys.version_info[:2])"
    done = subprocess.run([str(path), "-c", said], capture_output=True, text=True, check=False)
    return done.stdout.split() == ["cpython", *map(str, version)]
