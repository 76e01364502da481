"""The command line, run inside the test's own process: importing torch once is enough."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO
from unittest.mock import patch

from sdscratch.cli.app import main

__all__ = ["Result", "sdscratch"]


@dataclass(frozen=True)
class Result:
    """What a script would see of a command."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.stdout.decode().splitlines()


class Terminal(io.TextIOWrapper):
    """Says that it is one."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def sdscratch(
    *arguments: object,
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
    terminals: Sequence[str] = (),
) -> Result:
    """Run `sdscratch` with these arguments.

    Args:
        stdin: what it reads.
        stdout: where its results go, if not into the result.
        terminals: which of stdout and stderr claim to be one.
    """
    streams = {"stdout": stdout or io.BytesIO(), "stderr": io.BytesIO()}
    wrapped = {
        name: (Terminal if name in terminals else io.TextIOWrapper)(stream, "utf-8")  # type: ignore[arg-type]
        for name, stream in streams.items()
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with patch.multiple(
        sys, argv=["sdscratch", *map(str, arguments)], stdin=io.TextIOWrapper(io.BytesIO(stdin)), **wrapped
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        for stream in wrapped.values():
            stream.detach()
    texts = [stream.getvalue() if isinstance(stream, io.BytesIO) else b"" for stream in streams.values()]
    return Result(int(code or 0), texts[0], texts[1].decode())
