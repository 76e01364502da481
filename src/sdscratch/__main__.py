"""The way in: `sdscratch`, and `python -m sdscratch`."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import NoReturn

from sdscratch.errors import INTERRUPTED
from sdscratch.streams import open_missing

__all__ = ["main", "yield_sooner"]

# How many turns OpenMP's threads wait for each other before they sleep. GNU's 300,000 hold the processor even
# where others want it: beside a program that uses all cores a picture of the built-in model took 18 s, with
# this 4.5, and 3 on an idle machine either way.
TURNS = "3000"


def yield_sooner(environment: MutableMapping[str, str]) -> None:
    """Leave the processor to other programs where threads would wait; before torch is imported.

    Who has said how threads wait keeps that.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", TURNS)


def main() -> NoReturn:
    """Run the command line; Ctrl-C while it is still being imported ends like any other."""
    open_missing()
    yield_sooner(os.environ)
    try:
        from sdscratch.cli.app import main

        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
