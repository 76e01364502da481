"""Whether there is a home: containers under a foreign uid, services and `env -i` have none.

Who has none has no cache and no folder of their own, and everything else works. This module imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expanded", "home", "user_folder"]


def home() -> Path | None:
    """The user's home; None where neither $HOME nor the list of users says one."""
    if os.environ.get("HOME") == "":  # no home, though Python takes it for the root of all files
        return None
    try:
        found = Path.home()
    except (RuntimeError, KeyError):
        return None
    return found if found.is_absolute() else None


def expanded(name: str | Path) -> Path:
    """A path with `~` at its beginning put in full; as it stands where nobody is called so."""
    if Path(name).parts[:1] == ("~",) and home() is None:
        return Path(name)
    try:
        return Path(name).expanduser()
    except (RuntimeError, KeyError):
        return Path(name)


def user_folder(variable: str, usual: str) -> Path | None:
    """The folder of the XDG base directory specification that `variable` names, or `usual` in the home.

    A relative path in the variable does not count.
    """
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():
        return given / "sdscratch"
    place = home()
    return None if place is None else place / usual / "sdscratch"
