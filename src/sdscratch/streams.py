"""Standard streams that may be missing: a closed one is as the null device.

A parent can start a program without stdin, stdout or stderr (`>&-`, services, some schedulers). Python then
has None in their place, and the next file that is opened takes the number, so that results or warnings would
be written into a model. This module imports no torch.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

__all__ = ["HANG_UP", "leave_terminal", "open_missing"]

HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # the terminal has gone; Windows has no such signal

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing() -> None:
    """Open the null device wherever a standard stream is closed; before anything else is opened."""
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # the lowest number that is free is this one, as those below are open by now
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def leave_terminal() -> None:
    """After `HANG_UP`: what goes to the terminal that has gone goes to the null device, and fails no more."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(len(STREAMS)):
        with suppress(OSError):
            if os.isatty(number):
                os.dup2(null, number)
    os.close(null)
