"""How much memory of its own a command needs at most; file pages, which the system can take back, aside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["peak_anonymous"]

WATCHED = """
import re, sys, threading, time
from pathlib import Path

peak = 0

def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(re.search(r"RssAnon:\\s*(\\d+) kB", status)[1]) * 1024)
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
try:
    exec(compile(sys.argv.pop(1), "<measured>", "exec"))
finally:
    print(peak, file=sys.stderr)
"""


def peak_anonymous(code: str, *arguments: object) -> int:
    """Run Python code in a process of its own, with `sys.argv[1:]` as given; bytes at the highest point.

    Raises:
        AssertionError: the code failed.
    """
    status = Path("/proc/self/status")
    if not status.exists() or "RssAnon" not in status.read_text():
        pytest.skip("this system does not tell how much memory is anonymous")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])
