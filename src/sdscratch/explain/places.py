"""Where a page goes, and the tensors beside it: checked before any work, complete or absent together.

No torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sdscratch.errors import UsageError
from sdscratch.files import atomic_write, make_folder, refuse_existing, write_error, write_stream

__all__ = ["Places", "plan_page"]

DEFAULT_FOLDER = "outputs"
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class Places:
    """Where things go.

    Attributes:
        page: the page's file; None for stdout.
        chosen: whether its name was asked for; else the next one that is free is taken.
        tensors: files of tensors, by what they are ("run.npz").
    """

    page: str | None
    chosen: bool
    tensors: Mapping[str, Path]
    overwrite: bool = False

    def write(self, page: bytes, tensors: Mapping[str, bytes]) -> str | None:
        """Write the page and the tensors: all of them, or nothing.

        Returns:
            The page's path as it was asked for.

        Raises:
            UsageError: a name has been taken meanwhile.
            SdscratchError: something cannot be written.
        """
        with ExitStack() as files:
            path = None if self.page is None else free(self.page, self.chosen or self.overwrite)
            wanted = {} if path is None else {Path(path): page}
            wanted |= {self.tensors[name]: data for name, data in tensors.items()}
            for place, data in wanted.items():
                file = files.enter_context(atomic_write(place, overwrite=self.overwrite))
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # what finds no room is to fail before anything has its name
                except OSError as error:
                    raise write_error(place, error) from error
            if path is None:
                write_stream(sys.stdout.buffer, page)
        return path


def plan_page(
    output: str | None, seed: int, save: str | None, names: tuple[str, ...], *, overwrite: bool = False
) -> Places:
    """Plan where a page goes.

    Args:
        output: None (`outputs/explain-<seed>.html`, or the next free name), a folder, a file, or `-`.
        save: the folder for tensors, made where missing; None: they are not kept.
        names: the files in it.

    Raises:
        UsageError: another suffix, or a name that is taken.
        SdscratchError: nothing can be written there.
    """
    tensors = {} if save is None else {name: Path(save) / name for name in names}
    if output == "-":
        places = Places(None, True, tensors, overwrite)
    elif output is None or output.endswith(("/", os.sep)) or Path(output).is_dir():
        folder = (output or DEFAULT_FOLDER).rstrip("/") or "/"
        make_folder(Path(folder))
        places = Places(f"{folder}/explain-{seed}.html", False, tensors, overwrite)
    else:
        path = Path(output)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"--output {output!r} ends neither in {', '.join(SUFFIXES)}, nor in / for a folder"
            )
        if not overwrite:
            refuse_existing(path)
        make_folder(path.parent)
        places = Places(output, True, tensors, overwrite)
    if save is not None:
        if not overwrite:
            for each in tensors.values():
                refuse_existing(each)
        make_folder(Path(save))
    return places


def free(name: str, chosen: bool) -> str:
    """The name itself where it was chosen, else the first of it and `name-2`, `name-3`, … that is free."""
    return name if chosen else next(each for each in numbered(name) if not os.path.lexists(each))


def numbered(name: str) -> Iterator[str]:
    """A name, and the same with numbers."""
    suffix = Path(name).suffix
    stem = name.removesuffix(suffix)
    yield name
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1
