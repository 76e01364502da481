"""Which of the files that a picture says it was made with are on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdscratch.errors import SdscratchError
from sdscratch.show import printable

__all__ = ["file_words", "files_named"]


def files_named(path: Path, verbose: bool) -> list[dict[str, Any]]:
    """The files that a picture says it was made with, and where they are on this machine."""
    from sdscratch.cli.progress import make_view
    from sdscratch.cli.replay import hashing
    from sdscratch.jobs.replay import read_recipe

    try:
        wanted = read_recipe(path).files()
    except SdscratchError:  # it names none, or nothing that makes sense
        return []
    with make_view(verbose=verbose) as view, hashing(view, None) as library:
        found = [(each, library.find(each)) for each in wanted]
    return [
        {
            "kind": each.kind,
            "name": each.name,
            "hashes": list(each.hashes),
            "path": None if here is None else here.path,
            "by": None if here is None else here.by,
        }
        for each, here in found
    ]


def file_words(file: Mapping[str, Any]) -> str:
    """Where a file is, and how sure that is."""
    name = printable(file["name"]) or "without a name"
    if file["path"] is None:
        return f"{name} is not here"
    alone = ", by name alone" if file["by"] == "name" and file["hashes"] else ""
    return f"{name} is here: {file['path']}{alone}"
