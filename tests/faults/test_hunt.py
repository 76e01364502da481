"""A few mutated files of every kind are read or refused; and the watch sees what it is there to see."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from faults import headers, pictures
from faults.__main__ import HONEST, import_all
from faults.hunt import MOST, Family, hunt


@pytest.mark.parametrize(
    ("families", "count", "most"), [(headers.families, 600, MOST), (pictures.families, 60, HONEST)]
)
def test_mutated_files_are_read_or_refused(
    families: Callable[[], dict[str, Family]], count: int, most: int, tmp_path: Path
) -> None:
    for package in ("sdscratch.images.", "sdscratch.tensorfiles."):
        import_all(package)
    tally = hunt(families(), count, tmp_path, most=most)
    assert {name: found.what for name, found in tally.faults.items()} == {}
    assert (tally.cases, tally.read + tally.refused) == (count, count)
    assert min(tally.read, tally.refused) > 10


def broken(path: Path) -> None:
    raise KeyError("x")


def endless(path: Path) -> None:
    while True:
        pass


def greedy(path: Path) -> None:
    bytearray(3 << 30)


def writing(path: Path) -> None:
    path.with_name("x").write_text("x")


def running(path: Path) -> None:
    os.system("true")


def ending(path: Path) -> None:
    signal.raise_signal(signal.SIGKILL)


def wordy(path: Path) -> None:
    raise ValueError("one\ntwo")


def sleeping(path: Path) -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (broken, "KeyError"), (endless, "TooLong"), (greedy, "MemoryError"), (writing, "did open"),
        (running, "did os.system"), (ending, "ended by SIGKILL"), (wordy, "no sentence"), (sleeping, "hung"),
    ],
)  # fmt: skip
def test_the_watch_sees_it(does: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    def read(path: Path) -> None:
        if path.read_bytes() != b"sound":
            does(path)

    def mutate(chance: Random, data: bytes, others: object) -> bytes:
        return b"mutant"

    tally = hunt({"x": Family([b"sound"], mutate, read, (ValueError,))}, 1, tmp_path, longest=0.1)
    (found,) = tally.faults.values()
    assert found.what.startswith(said)
    assert Path(found.file).read_bytes() == b"mutant"
