"""The way in: `sdscratch`, and `python -m sdscratch`."""

from __future__ import annotations

import sys
from typing import NoReturn

from sdscratch.errors import INTERRUPTED

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; Ctrl-C while it is still being imported ends like any other."""
    try:
        from sdscratch.cli.app import main

        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
