"""The command line in processes of their own that start at once: forked from one that has imported torch.

They can be killed, given little disk, and run beside each other.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.cli import Result, sdscratch

__all__ = ["Command"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "sdscratch.generation.pipeline", "sdscratch.cli.run", "support.forks"]
)


def _main(
    arguments: tuple[str, ...], folder: Path, most: int | None, environment: dict[str, str], end: Connection
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    end.send(sdscratch(*arguments))
    end.close()


class Command:
    """`sdscratch` with some arguments, begun.

    Args:
        folder: where it runs.
        most: bytes that each of its files may have, as on a disk that is full then.
        environment: variables besides the usual ones.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        most: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.end, theirs = CONTEXT.Pipe(duplex=False)
        self.started = time.monotonic()
        self.process: BaseProcess = CONTEXT.Process(
            target=_main, args=(tuple(map(str, arguments)), folder, most, environment or {}, theirs)
        )
        self.process.start()
        theirs.close()

    def killed(self, after: float) -> bool:
        """Kill it after so many seconds; whether it was still at work."""
        self.process.join(after)
        at_work = self.process.is_alive()
        self.process.kill()
        self.process.join()
        return at_work

    def result(self) -> Result:
        """What came of it."""
        result: Result = self.end.recv()
        self.process.join()
        return result

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process.pid is not None
        return self.process.pid
