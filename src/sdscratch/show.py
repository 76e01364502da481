"""Strangers' text on a terminal: names from files, texts from pictures, options as they were typed.

Nothing in it may act: control sequences (ECMA-48) move the cursor, rename the window and write the clipboard;
the marks of the bidirectional algorithm (Unicode UAX 9) let a name read as another. Python's own table says
which characters those are. This module imports no torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["escaped", "listed", "printable", "quoted"]

LONGEST = 200  # characters of a name that an error tells
LISTED = 3  # names that an error tells before it counts the others
JOINERS = "\u200c\u200d"  # invisible, and part of how Persian and families of emoji are spelled


def printable(text: object) -> str:
    """`text` in one line fit for a terminal: control characters escaped, cut after 200 characters."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[: LONGEST + 1])
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def escaped(text: object, keep: str = "\n") -> str:
    """All of `text`, of which nothing acts on a terminal; the characters in `keep` stay as they are.

    Unlike `printable` it keeps the spaces and joiners that other scripts are written with.
    """
    return "".join(c if c in keep or _still(c) else ascii(c)[1:-1] for c in str(text))


def quoted(value: object) -> str:
    """A value as Python would write it, in one line and no longer than `printable` has it."""
    return printable(repr(value))


def listed(names: Sequence[str], what: str = "tensors") -> str:
    """A few names, then a count of the rest."""
    rest = len(names) - LISTED
    return ", ".join(map(printable, names[:LISTED])) + (f" and {rest} more {what}" if rest > 0 else "")


def _still(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"
