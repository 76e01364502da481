"""The package built from copies of the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.tested_set import ROOT

__all__ = ["build", "copied"]

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
