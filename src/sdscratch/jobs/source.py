"""A plan's file line by line, never held whole. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sdscratch.errors import ImageError
from sdscratch.texts import NotText, utf_8_lines

__all__ = ["NumberedLine", "read_lines"]


class NumberedLine(NamedTuple):
    """A line, and where it stands."""

    number: int  # from 1
    text: str  # without its end


def read_lines(path: Path) -> Iterator[NumberedLine]:
    """The lines of a text file.

    Raises:
        ImageError: missing, unreadable, or no text (exit code 4: a jobs file).
    """
    try:
        with utf_8_lines(path) as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise ImageError(
                        f"{path}, line {number}: byte {error.start + 1} is not UTF-8; convert it to UTF-8"
                    ) from None
                yield NumberedLine(number, text.rstrip("\r\n"))
    except NotText as error:
        raise ImageError(str(error)) from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None
