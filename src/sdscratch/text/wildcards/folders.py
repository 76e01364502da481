"""Lists that `__name__` draws from: text files of a line each, and the lists in JSON and YAML files.

A list is found by its name among those that there are, never by opening a path: nothing outside of the
folders is read, links that lead out of them included.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sdscratch.errors import UsageError
from sdscratch.home import user_folder
from sdscratch.show import printable
from sdscratch.texts import NotText, read_text

__all__ = ["Entry", "Lists", "usual_folders"]

log = logging.getLogger(__name__)

MOST = 1_000_000  # entries of a JSON or YAML file: aliases in YAML can stand for more than memory holds
DEEPEST = 20  # tables in one another
STRUCTURED = (".json", ".yaml", ".yml")


class Entry(NamedTuple):
    """A line of a list."""

    text: str
    weight: float = 1.0


def usual_folders() -> tuple[Path, ...]:
    """./wildcards, and wildcards in the user's data folder."""
    own = user_folder("XDG_DATA_HOME", ".local/share")
    return (Path("wildcards"), *([] if own is None else [own / "wildcards"]))


@dataclass(frozen=True)
class Lists:
    """The lists of some folders; of two lists of one name the first folder's counts."""

    folders: tuple[Path, ...] = field(default_factory=usual_folders)
    _read: dict[str, tuple[Entry, ...]] = field(default_factory=dict, compare=False, repr=False)

    def matching(self, path: str) -> tuple[Entry, ...]:
        """The entries of all lists whose name matches, each once, in alphabetical order.

        `*` and `**` stand for any characters, `?` for one, `[ab]` for one of these. A name that matches
        nothing is looked for in the folders below, too.

        Raises:
            UsageError: there is none, or a file cannot be read.
        """
        pattern = "/".join(part for part in path.strip().replace("\\", "/").split("/") if part)
        if ".." in pattern:
            raise UsageError(f"the wildcard __{printable(path)}__ has .. in it; lists lie below their folder")
        if pattern not in self._read:
            names = [name for name in self._found if fnmatchcase(name, pattern)]
            names = names or [name for name in self._found if fnmatchcase(name, f"**/{pattern}")]
            entries = (entry for name in names for entry in self._entries(name))
            self._read[pattern] = tuple(sorted(dict.fromkeys(entries), key=lambda entry: entry.text))
        if not self._read[pattern]:
            where = " or ".join(map(str, self.folders))
            raise UsageError(
                f"there is no list for the wildcard __{printable(path)}__ in {where}; "
                "check its name, or give its folder as --wildcard-folder"
            )
        return self._read[pattern]

    def _entries(self, name: str) -> Sequence[Entry]:
        found = self._found[name]
        return _lines(found) if isinstance(found, Path) else found

    @cached_property
    def _found(self) -> dict[str, Path | Sequence[Entry]]:
        """Every list by its name: a text file, or what a JSON or YAML file holds."""
        found: dict[str, Path | Sequence[Entry]] = {}
        for folder in self.folders:
            for path in _files(folder):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if path.suffix == ".txt":
                    found.setdefault(stem, path)
                else:
                    above = stem.rpartition("/")[0]
                    for name, entries in _structured(path):
                        found.setdefault(f"{above}/{name}" if above else name, entries)
        return found


def _files(folder: Path) -> Iterator[Path]:
    """Every file of a kind that holds lists, really inside the folder."""
    real = folder.resolve()
    for above, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            path = Path(above, name)
            if path.suffix not in (".txt", *STRUCTURED):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(real):
                log.warning("%s leads out of %s, so it is not read", path, folder)
                continue
            yield path


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise UsageError(f"the wildcard file {path} cannot be read: {error.strerror}") from None
    except NotText as error:
        raise UsageError(str(error)) from None


def _lines(path: Path) -> Sequence[Entry]:
    lines = (line.strip() for line in _text(path).splitlines())
    return [Entry(line) for line in lines if line and not line.startswith("#")]


def _structured(path: Path) -> Iterator[tuple[str, Sequence[Entry]]]:
    """The lists of a JSON or YAML file, by their names in it; a damaged file has none, and is told of."""
    try:
        if path.suffix == ".json":
            data = json.loads(_text(path))
        else:
            import yaml  # not for those who have no such files

            data = yaml.safe_load(_text(path))
        if isinstance(data, list):
            data = {path.stem: [each for each in data if isinstance(each, str)]}
        yield from _tables(data, "", 0, [MOST])
    except UsageError as error:
        log.warning("%s", error)
    except Exception as error:  # yaml raises whatever it likes
        log.warning("the wildcard file %s cannot be read: %s", path, str(error).replace("\n", " "))


def _tables(data: Any, above: str, depth: int, left: list[int]) -> Iterator[tuple[str, Sequence[Entry]]]:
    if not isinstance(data, dict) or depth > DEEPEST:
        return
    for name, value in data.items():
        left[0] -= 1 + (len(value) if isinstance(value, list) else 0)
        if left[0] < 0:
            raise ValueError(f"it holds more than {MOST:,} entries")
        full = f"{above}{name}"
        if isinstance(value, str) and value:
            yield full, list(_weighted([value]))
        elif isinstance(value, list):
            yield full, list(_weighted(value))
        else:
            yield from _tables(value, f"{full}/", depth + 1, left)


def _weighted(values: Iterable[Any]) -> Iterator[Entry]:
    """A list's entries: `text`, `2::text`, or {text: …, weight: 2}."""
    for value in values:
        if isinstance(value, dict):
            text = value.get("text") or value.get("content")
            weight = value.get("weight", 1)
            if isinstance(text, str) and isinstance(weight, int | float):
                yield Entry(text, float(weight))
        elif isinstance(value, str) and value:
            weight, _, text = value.rpartition("::")
            try:
                yield Entry(text, float(weight)) if value[0].isdigit() else Entry(value)
            except ValueError:
                yield Entry(value)
