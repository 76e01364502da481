"""Mutated files through a reader, under watch.

A child process reads one file after the other. What counts as a fault: an exception that is none of the
reader's own refusals, a refusal of more than one sentence, over `LONGEST` seconds or `MOST` bytes of memory,
anything done besides reading (an audit hook sees it), and the end of the process itself.
"""

from __future__ import annotations

import codecs
import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

__all__ = ["Family", "Found", "Tally", "hunt"]

LONGEST = 5.0  # seconds of the processor that a file may take: others may be at work on the machine
STUCK = 12 * LONGEST  # of the clock; then it waits, or no signal reaches it, and the process is ended
MOST = 1 << 30  # bytes of memory that a file may take
TURN = 0.02  # seconds between looks at the process
WORDS = 1500  # characters of a refusal
KEPT = 400  # mutants that were refused in a new way, and are mutated further
LARGEST = 1 << 15  # bytes of one of them

# What reading does that is no harm: import events are looked at by their module's name.
HARMLESS = {
    *("object.__getattr__", "object.__setattr__", "sys._getframe", "os.listdir", "os.scandir"),
    *(
        "array.__new__",
        "builtins.id",
        "code.__new__",
        "gc.get_objects",
        "os.fspath",
        "time.sleep",
        "glob.glob",
        "os.walk",
    ),
}

CODINGS = (
    "latin-1",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-8-sig",
)  # Python loads them when needed


class Forbidden(BaseException):
    """Something was done that no reader does; not an Exception, so that none swallows it."""


class TooLong(BaseException):
    """A file took longer than it may."""


@dataclass(frozen=True)
class Family:
    """Files of one kind: sound ones, how they are changed, and how they are read."""

    seeds: Sequence[bytes]
    mutate: Callable[[Random, bytes, Sequence[bytes]], bytes]  # also given: the other seeds
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    name: str = "case"  # of the file, in the folder; neighbours may stand beside it
    share: int = 1  # how often it comes, beside the others
    may: frozenset[str] = frozenset()  # audit events besides reading


@dataclass
class Found:
    """A fault, and how often it came."""

    family: str
    what: str
    where: str
    file: str
    count: int = 1


@dataclass
class Tally:
    """What came of it."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    sentences: int = 0  # that differ
    slowest: float = 0.0
    memory: int = 0  # bytes above the beginning
    seconds: float = 0.0
    faults: dict[str, Found] = field(default_factory=dict)
    families: Counter[str] = field(default_factory=Counter)

    def add(self, found: Found) -> None:
        """Count a fault; those of one place and kind are one."""
        key = f"{found.family}: {found.what.partition(':')[0]} {found.where}"
        if key in self.faults:
            self.faults[key].count += 1
        else:
            self.faults[key] = found


def hunt(
    families: Mapping[str, Family],
    count: int,
    folder: Path,
    *,
    seed: int = 0,
    longest: float = LONGEST,
    most: int = MOST,
    told: Callable[[str], object] = lambda line: None,
) -> Tally:
    """Read `count` mutants of these families.

    Args:
        folder: where the file that is read stands, best in memory; faults are kept in `found` there.
        told: of how far it is, now and then.
    """
    tally, started, begin = Tally(), time.monotonic(), 0
    shared = mmap.mmap(-1, 8)
    (folder / "found").mkdir(parents=True, exist_ok=True)
    while begin < count:
        report = folder / "report.jsonl"
        report.unlink(missing_ok=True)
        struct.pack_into("<q", shared, 0, begin)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _Child(families, folder, seed, longest, most, shared).run(begin, count)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        ended = _watched(child, shared, longest, lambda at: told(f"{at:,} of {count:,}"))
        reached = struct.unpack_from("<q", shared)[0]
        for line in report.read_text().splitlines() if report.exists() else ():
            _added(tally, json.loads(line))
        if ended is None:
            begin = count
        else:
            name = _name_of(families, reached)
            kept = folder / "found" / f"{seed}-{reached}-{Path(families[name].name).name}"
            kept.write_bytes((folder / families[name].name).read_bytes())
            tally.add(Found(name, ended, "", str(kept)))
            begin = reached + 1
    tally.cases, tally.seconds = count, time.monotonic() - started
    return tally


def _watched(child: int, shared: mmap.mmap, longest: float, told: Callable[[int], object]) -> str | None:
    """Wait for the child; how it ended before its time, if it did."""
    at, waited, said = -1, 0.0, time.monotonic()  # waited: counted in turns, for all of this may be stopped
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
            if os.WEXITSTATUS(status):
                raise RuntimeError("the process that reads could not do its work; its words are on stderr")
            return None
        time.sleep(TURN)
        now, reached = time.monotonic(), struct.unpack_from("<q", shared)[0]
        waited = waited + TURN if reached == at else 0.0
        at = reached
        if waited > longest / LONGEST * STUCK:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"hung for {waited:.0f} s where no signal reaches it"
        if now - said > 30:
            said = now
            told(reached)


def _name_of(families: Mapping[str, Family], index: int) -> str:
    turns = [name for name, family in families.items() for _ in range(family.share)]
    return turns[index % len(turns)]


def _added(tally: Tally, line: dict[str, Any]) -> None:
    if "what" in line:
        tally.add(Found(**line))
        return
    tally.read += line["read"]
    tally.refused += line["refused"]
    tally.sentences = max(tally.sentences, line["sentences"])
    tally.slowest = max(tally.slowest, line["slowest"])
    tally.memory = max(tally.memory, line["memory"])
    tally.families.update(line["families"])


class _Child:
    """The process that reads."""

    def __init__(
        self,
        families: Mapping[str, Family],
        folder: Path,
        seed: int,
        longest: float,
        most: int,
        shared: mmap.mmap,
    ) -> None:
        self.families, self.folder, self.seed, self.longest = families, folder, seed, longest
        self.most, self.shared = most, shared
        self.watching: Family | None = None
        self.events: list[str] = []
        self.corpus = {name: list(family.seeds) for name, family in families.items()}
        self.counts: Counter[str] = Counter()
        self.by_family: Counter[str] = Counter()
        self.sentences: set[str] = set()
        self.slowest = 0.0

    def run(self, begin: int, end: int) -> None:
        warnings.simplefilter("ignore")
        for coding in CODINGS:
            codecs.lookup(coding)
        self.report = (self.folder / "report.jsonl").open("a")
        for family in self.families.values():
            (self.folder / family.name).parent.mkdir(parents=True, exist_ok=True)
        for name, family in self.families.items():  # unwatched, so that what is loaded late is there
            for data in family.seeds:
                try:
                    family.read(self._written(family, data))
                except family.refusals as refusal:
                    raise AssertionError(f"a sound file of {name} is refused: {refusal}") from refusal
        sys.addaudithook(self._hook)
        signal.signal(signal.SIGPROF, self._alarm)
        before = _status("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (before + self.most, resource.RLIM_INFINITY))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            for index in range(begin, end):
                struct.pack_into("<q", self.shared, 0, index)
                self._case(index)
        finally:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            summary = {
                "read": self.counts["read"],
                "refused": self.counts["refused"],
                "sentences": len(self.sentences),
                "slowest": self.slowest,
                "memory": (peak - memory) << 10,
                "families": self.by_family,
            }
            self.report.write(json.dumps(summary) + "\n")
            self.report.close()

    def _written(self, family: Family, data: bytes) -> Path:
        path = self.folder / family.name
        path.write_bytes(data)
        return path

    def _case(self, index: int) -> None:
        name = _name_of(self.families, index)
        family, corpus = self.families[name], self.corpus[name]
        self.by_family[name] += 1
        chance = Random(f"{self.seed}/{index}")
        sound = chance.random() < 0.7
        data = family.mutate(chance, chance.choice(family.seeds if sound else corpus), corpus)
        path = self._written(family, data)
        self.events.clear()
        started = time.process_time()
        what = where = sentence = ""
        try:
            signal.setitimer(signal.ITIMER_PROF, self.longest)
            self.watching = family
            try:
                family.read(path)
            finally:
                self.watching = None
                signal.setitimer(signal.ITIMER_PROF, 0)
        except family.refusals as refusal:
            sentence = str(refusal)
            if "\n" in sentence or not sentence or len(sentence) > WORDS:
                what, where = f"no sentence: {sentence[:WORDS]!r}", _place(refusal)
        except BaseException as error:
            what, where = f"{type(error).__name__}: {str(error)[:300]}", _place(error)
        took = time.process_time() - started
        if self.events:
            what, where = f"did {self.events[0]}", where
        elif took > self.longest and not what:
            what = f"took {took:.1f} s"
        self.slowest = max(self.slowest, took)
        if what:
            kept = self.folder / "found" / f"{self.seed}-{index}-{path.name}"
            kept.write_bytes(data)
            self.report.write(json.dumps(vars(Found(name, what, where, str(kept)))) + "\n")
            self.report.flush()
        self.counts["refused" if sentence else "read"] += 1
        if sentence:
            self._learn(sentence, name, data)

    def _learn(self, sentence: str, name: str, data: bytes) -> None:
        """Keep what was refused in a new way: it reached another line of the reader."""
        shape = re.sub(r"\d+|'[^']*'|\"[^\"]*\"|\([^)]*\)", "", sentence.partition(": ")[2] or sentence)[:60]
        key = f"{name} {shape}"
        if key not in self.sentences:
            self.sentences.add(key)
            corpus = self.corpus[name]
            if len(corpus) < KEPT and len(data) <= LARGEST:
                corpus.append(data)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        family = self.watching
        if family is None or event in HARMLESS or event in family.may:
            return
        if event == "open" and _only_reads(arguments):
            return
        if event in ("compile", "exec") and _of_annotations():
            return
        if event == "mmap.__new__" and arguments[2] in (mmap.ACCESS_READ, mmap.ACCESS_COPY):
            return
        self.watching = None  # what the hook itself does is no event
        self.events.append(f"{event} {arguments!r:.200}")
        raise Forbidden(event)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self.watching is not None:
            raise TooLong(f"over {self.longest} s")


def _of_annotations() -> bool:
    """Whether Python evaluates our own annotations, which it does as if they were code."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") != "faults.hunt":
        if frame.f_globals.get("__name__") == "typing":
            return True
        frame = frame.f_back
    return False


def _only_reads(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return not set(mode) & set("wxa+")
    return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def _place(error: BaseException) -> str:
    """Where it was raised: the innermost line of the package's own, and of whoever it called."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}sdscratch{os.sep}" in frame.filename]
    places = [*own[-1:], *frames[-1:]]
    return " < ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in reversed(places))


def _status(name: str) -> int:
    """Bytes, by a line of Linux's /proc/self/status."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0
