"""Where pictures go: numbered in a folder, under a name, or to standard output; checked before any work."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.errors import UsageError
from sdscratch.files import locked, make_folder, refuse_existing, write_error
from sdscratch.images import SUFFIXES, Extras, Record, save_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OutputPlan", "plan_outputs"]

DEFAULT_FOLDER = "outputs"
NUMBERED = re.compile(r"([0-9]{4,})-[0-9]+\.png")


@dataclass(frozen=True)
class OutputPlan:
    """Where each picture of a run goes: to one of `names`, else numbered into `folder`, else to stdout."""

    seeds: tuple[int, ...]
    names: tuple[str, ...] = ()
    folder: str | None = None  # ends in /
    overwrite: bool = False

    def path(self, index: int) -> str | None:
        """The file of picture `index` (from 0), spelled as it was asked for; None for stdout.

        In a folder it has the next number free by now.
        """
        if self.names:
            return self.names[index]
        if self.folder is None:
            return None
        return f"{self.folder}{_next_number(self.folder):04d}-{self.seeds[index]}.png"

    def save(self, index: int, image: Image, record: Record | Extras | None = None) -> str | None:
        """Write picture `index`, and return its path as `path` has it.

        Raises:
            UsageError: its name has been taken since the plan was made.
            SdscratchError: it cannot be written; nothing is left behind.
        """
        with _numbers_locked(self.folder):
            path = self.path(index)
            destination = sys.stdout.buffer if path is None else Path(path)
            save_picture(image, destination, record, overwrite=self.overwrite)
        return path


def plan_outputs(output: str | None, seeds: Sequence[int], *, overwrite: bool = False) -> OutputPlan:
    """Plan where the pictures with these seeds go, one name each; folders are made where missing.

    `output` is None (`outputs/0001-<seed>.png`, next free number), a folder (ends in `/`, or exists), a file
    name (several pictures: `name-1.png`, `name-2.png`, …), or `-` for stdout.

    Raises:
        UsageError: an unknown suffix, a name that is taken, or several pictures for stdout.
        SdscratchError: nothing can be written there.
    """
    seeds = tuple(seeds)
    if output == "-":
        if len(seeds) > 1:
            raise UsageError("--output - takes one picture only; give a file or a folder for several")
        return OutputPlan(seeds)
    name = f"{DEFAULT_FOLDER}/" if output is None else output
    path = Path(name)
    slash = name.endswith(("/", os.sep))
    if slash or (name and _is_folder(path)):
        make_folder(path)
        _next_number(name)  # the folder can be listed, too
        return OutputPlan(seeds, folder=name if slash else f"{name}/")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output {name!r} ends neither in {', '.join(SUFFIXES)}, nor in / for a folder")
    names = (name,) if len(seeds) == 1 else _several(name, len(seeds))
    for each in map(Path, names):
        if _is_folder(each):
            raise UsageError(f"{each} is a folder; choose another name")
        if not overwrite:
            refuse_existing(each)
    make_folder(path.parent)
    return OutputPlan(seeds, names=names, overwrite=overwrite)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name too long, above all
        raise write_error(path, error) from error


def _several(name: str, count: int) -> tuple[str, ...]:
    suffix = Path(name).suffix
    stem = name.removesuffix(suffix)
    return tuple(f"{stem}-{index}{suffix}" for index in range(1, count + 1))


def _next_number(folder: str) -> int:
    """One more than the highest number in the folder, so that pictures stay in the order they were made."""
    try:
        found = [NUMBERED.fullmatch(path.name) for path in Path(folder).iterdir()]
    except OSError as error:
        raise write_error(f"into {folder}", error) from error
    return 1 + max((int(match[1]) for match in found if match), default=0)


@contextmanager
def _numbers_locked(folder: str | None) -> Iterator[None]:
    """Keep other processes from taking the same number meanwhile.

    Where a file system has no locks, two pictures may share a number; never a name, so nothing is lost.
    """
    with ExitStack() as stack:
        if folder is not None:
            try:
                stack.enter_context(locked(Path(folder)))
            except OSError as error:
                raise write_error(f"into {folder}", error) from error
        yield
