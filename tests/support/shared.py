"""Where reference data lies that is too large, or not ours, to be in the project."""

from __future__ import annotations

import os
from pathlib import Path

from support.absent import absent

BESIDE_THE_PROJECT = Path(__file__).resolve().parents[3] / "shared"


def shared_path(*parts: str) -> Path:
    """A file of the shared data; the test is skipped where that is absent."""
    path = Path(os.environ.get("SDSCRATCH_SHARED") or BESIDE_THE_PROJECT).joinpath(*parts)
    if not path.exists():
        absent(f"{'/'.join(parts)} is not in the shared data (SDSCRATCH_SHARED, or ../shared)")
    return path
