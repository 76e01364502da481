"""What a person sees while they wait: bars on a terminal, a line a stage in a log, nothing with --quiet."""

from __future__ import annotations

import sys

from sdscratch.cli.view import Advance, PlainView, View

__all__ = ["Advance", "View", "make_view"]


def make_view(*, quiet: bool = False, verbose: bool = False) -> View:
    """The view that suits this stderr."""
    if quiet:
        return View()
    if not sys.stderr.isatty():
        return PlainView(verbose)
    from sdscratch.cli.bars import BarView  # with Rich, for which scripts need not wait

    return BarView(verbose)
