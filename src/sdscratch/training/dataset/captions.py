"""What a folder's pictures show: captions from `metadata.jsonl` or `metadata.csv`, or `NAME.txt` beside each.

The tables follow the image-folder convention of Hugging Face: `file_name` is relative to the table's own
folder, and the caption stands in `text` (or `caption`, or `prompt`). A row that makes no sense is listed, and
never fatal. Names in a table are only compared with those of the pictures found; no path is made from them.
This module imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdscratch.texts import NotText, decode, utf_8_lines

__all__ = ["COLUMNS", "TABLES", "Captions", "Skipped", "plain_name", "read_captions", "read_text"]

COLUMNS = ("text", "caption", "prompt")  # the first of them that says something counts
NAME = "file_name"
LONGEST = 10_000  # characters of a caption; a text encoder reads some 300
LONGEST_LINE = 1 << 20  # bytes of a line of JSON, or of a text file

Record = Mapping[str, object]
Row = tuple[int, Record | str]  # the line at which it ends; what it says, or why it says nothing


@dataclass(frozen=True)
class Skipped:
    """Something in the folder that is not trained on, and why."""

    path: str  # relative to the folder
    reason: str


@dataclass(frozen=True)
class Captions:
    """What the tables of a folder say, by `plain_name` of the pictures."""

    texts: Mapping[str, str]
    places: Mapping[str, str]  # where each stands, in words
    skipped: tuple[Skipped, ...]


def plain_name(path: str) -> str:
    """One spelling for every way to write a relative path: no `./`, and letters with their accents as one."""
    return unicodedata.normalize("NFC", posixpath.normpath(path))


def read_captions(root: Path, tables: Sequence[str], columns: Sequence[str] = COLUMNS) -> Captions:
    """Read the tables at these paths below `root`; where several speak of a picture, the first counts."""
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    skipped: list[Skipped] = []
    for table in tables:
        for line, row in TABLES[posixpath.basename(table).lower()](root / table):
            place = f"{table}, line {line}"
            found = row if isinstance(row, str) else _caption(posixpath.dirname(table), row, columns)
            if isinstance(found, str):
                skipped.append(Skipped(place, found))
            elif found[0] in texts:
                skipped.append(Skipped(place, f"{found[0]} has a caption already, in {places[found[0]]}"))
            elif found[1]:
                texts[found[0]], places[found[0]] = found[1], place
    return Captions(texts, places, tuple(skipped))


def read_text(path: Path) -> str:
    """The caption in a text file, in one line; empty where there is none.

    Raises:
        ValueError: it is no text, or too long.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(LONGEST_LINE + 1)
    if len(data) > LONGEST_LINE:
        raise ValueError(f"its caption is longer than {LONGEST:,} characters")
    return _one_line(decode(data, "of its caption", errors="surrogateescape"))


def _one_line(text: str) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"its caption is longer than {LONGEST:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("its caption is not in UTF-8") from None
    return " ".join(text.split())


def _caption(folder: str, row: Record, columns: Sequence[str]) -> tuple[str, str] | str:
    """The picture's name and caption (empty where there is none); or what is wrong with the row."""
    name = row.get(NAME)
    if not isinstance(name, str) or not name.strip():
        return f"it names no picture in {NAME}"
    path = plain_name(posixpath.join(folder, name))
    if posixpath.isabs(path) or path.startswith("../") or path == "..":
        return f"{name} lies outside of the folder"
    values = [row.get(column) for column in columns]
    if any(value is not None and not isinstance(value, str) for value in values):
        return f"the caption of {name} is no text"
    try:
        return path, next((text for value in values if value and (text := _one_line(str(value)))), "")
    except ValueError as error:
        return f"{name}: {error}"


def _json_rows(path: Path) -> Iterator[Row]:
    """JSON Lines: an object a line. Only a newline ends a line; the characters that Unicode adds do not."""
    try:
        with utf_8_lines(path) as file:
            for number, line in enumerate(file, 1):
                if text := line.strip():
                    yield number, _json_row(text)
    except NotText as error:
        yield 1, str(error)
    except OSError as error:
        yield 1, f"it cannot be read: {error.strerror}"


def _json_row(line: bytes) -> Record | str:
    if len(line) > LONGEST_LINE:
        return f"it is longer than {LONGEST_LINE:,} bytes"
    try:
        row = json.loads(line.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return "it is no JSON"
    return row if isinstance(row, dict) else "it is no JSON object"


def _csv_rows(path: Path) -> Iterator[Row]:
    """CSV (RFC 4180) with a first row of names. A field may hold line breaks and 131,072 characters."""
    try:
        with (
            utf_8_lines(path) as stream,
            io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="") as file,
        ):
            rows = csv.reader(file, strict=True)
            names: list[str] | None = None
            while True:
                try:
                    values = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield rows.line_num, f"it is no CSV ({error})"
                    continue
                if names is None:
                    names = [name.strip() for name in values]
                    if NAME not in names:
                        yield 1, f"its first row has no column {NAME}"
                        return
                elif values:
                    yield rows.line_num, dict(zip(names, values, strict=False))
    except NotText as error:
        yield 1, str(error)
    except OSError as error:
        yield 1, f"it cannot be read: {error.strerror}"


# by their names in small letters: file systems, and people, differ in case
TABLES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "metadata.jsonl": _json_rows,
    "metadata.csv": _csv_rows,
}
