"""Ours and each peer in turn, in one run: `make bench-peers`, or `python -m sdscratch.bench.peers`.

Every engine lives in a process of its own and sleeps while another is measured. A round is every engine
forward and then backward (A B B A), so that a machine that grows warm or busy favours none. An engine that
cannot be had or fails is a line in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from sdscratch.bench.peers.engines import ENGINES, converted
from sdscratch.bench.peers.prepare import SHAPES, prepare, usual_cache
from sdscratch.bench.peers.report import Measured, Report, distances, markdown, text
from sdscratch.bench.peers.work import Work

REFERENCES = ("diffusers", "sdscratch-float32", "diffusers-best")  # whose results count as exact
NOT_BY_DEFAULT = ("sdscratch-float32",)
COLD = {
    "help": ("-m", "sdscratch", "--help"),
    "import torch": ("-c", "import torch"),
    "txt2img": ("-m", "sdscratch", "txt2img", "a red apple", "--steps", "20", "--seed", "0", "-q", "-o", "-"),
}


class Failed(Exception):
    """An engine that cannot go on, with the reason."""


class Worker:
    """A process with one engine in it."""

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sdscratch.bench.peers.worker", name, json.dumps(asdict(work))],
            env=environment(work.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, *command: str) -> dict[str, Any]:
        """Give a command, wait for its answer.

        Raises:
            Failed: the engine raised an exception, or its process ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"its process ended with {self.process.wait()}: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def last_words(self) -> str:
        """The end of what it wrote on stderr."""
        self.log.seek(0)
        return " ".join(self.log.read().split())[-200:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def environment(threads: int) -> dict[str, str]:
    """Ours, with this many threads for whatever asks it."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def say(words: str) -> None:
    """Tell who waits."""
    print(words, file=sys.stderr, flush=True)


def measure(names: Sequence[str], work: Work, rounds: int, cold: int) -> Report:
    """Run it all."""
    from sdscratch.bench.machine import processor

    machine = {"processor": processor(), "turns": 2 * rounds}
    report = Report(machine, asdict(work), {name: Measured(name) for name in names})
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        workers = start(names, work, report, stack)
        take_turns(workers, report, rounds)
        compare(workers, report, Path(folder))
    for name, arguments in COLD.items() if cold else ():
        say(f"{name}, cold")
        report.cold[name] = whole_process(arguments, work.threads, cold)
    return report


def start(names: Sequence[str], work: Work, report: Report, stack: ExitStack) -> dict[str, Worker]:
    """Load every engine, one after another; those that fail say so in the report."""
    workers: dict[str, Worker] = {}
    for name in names:
        say(f"{name}: loading, first run")
        engine = report.engines[name]
        if name.startswith("openvino") and not all(path.exists() for path in converted(work)):
            say("openvino: converting diffusers' networks (once)")
            with Worker("convert", work) as converter:
                if converter.process.wait():
                    engine.failed = f"could not be converted: {converter.last_words()}"
                    continue
        worker = stack.enter_context(Worker(name, work))
        try:
            answer = worker.ask("start")
        except Failed as error:
            engine.failed = str(error)
            say(f"{name}: {error}")
            worker.process.kill()
            continue
        engine.precision, engine.versions = answer["precision"], answer["versions"]
        engine.load, engine.peak = answer["load"], answer["peak"]["bytes"]
        if answer["once"]:
            note(engine, answer["first"])
            worker.process.kill()
        else:
            workers[name] = worker
    return workers


def take_turns(workers: dict[str, Worker], report: Report, rounds: int) -> None:
    """A B B A, as often as asked."""
    for turn in range(2 * rounds):
        for name in list(workers)[:: -1 if turn % 2 else 1]:
            try:
                note(report.engines[name], workers[name].ask("turn"))
            except Failed as error:
                report.engines[name].failed = str(error)
                del workers[name]
        say(f"turn {turn + 1} of {2 * rounds} done")


def note(engine: Measured, answer: dict[str, float]) -> None:
    """Keep a turn's times."""
    engine.steps.append(answer["step"])
    engine.decodes.append(answer["decode"])


def compare(workers: dict[str, Worker], report: Report, folder: Path) -> None:
    """Measure how far every engine's results are from the reference's."""
    found = {}
    for name, worker in workers.items():
        path = folder / f"{name}.npz"
        try:
            worker.ask("results", str(path))
        except Failed as error:
            say(f"{name}: no results to compare: {error}")
            continue
        with np.load(path) as file:
            found[name] = {key: file[key] for key in file.files}
    report.reference = next((name for name in REFERENCES if name in found), None)
    if report.reference is not None:
        for name, results in found.items():
            report.engines[name].distance = distances(results, found[report.reference])


def whole_process(arguments: Sequence[str], threads: int, times: int) -> float:
    """Seconds from a process's start to its end, the median; the first only fills caches."""
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], env=environment(threads), check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def has_bfloat16() -> bool:
    """Whether this processor has arithmetic for it."""
    from sdscratch.device import choose

    return choose("cpu").dtype_name == "bfloat16"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m sdscratch.bench.peers", description=__doc__)
    default = [name for name in ENGINES if name not in NOT_BY_DEFAULT]
    parser.add_argument(
        "--engines", default=",".join(default), help=f"engines to measure, of {', '.join(ENGINES)}"
    )
    parser.add_argument(
        "--shape", choices=list(SHAPES), default="sd1", help="shape of the model; tiny: to see that all works"
    )
    parser.add_argument("--size", default="512x512", metavar="WxH", help="pixels of a picture")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of A B B A")
    parser.add_argument(
        "--cold", type=int, default=5, help="number of times that whole processes are timed; 0: not at all"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--cache", type=Path, default=usual_cache(), help="folder that what is made once is kept in"
    )
    parser.add_argument("--json", type=Path, help="write all of it to this file, too")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, too")
    options = parser.parse_args()
    names = options.engines.split(",")
    if unknown := set(names) - set(ENGINES):
        parser.error(f"no engine is called {', '.join(sorted(unknown))}")
    width, height = map(int, options.size.split("x"))
    say("preparing")
    work = prepare(
        options.cache, options.shape, width, height, options.steps, options.threads, has_bfloat16()
    )
    with Path(work.checkpoint).open("rb") as file:  # into the page cache: disks are not what is measured
        while file.read(1 << 24):
            pass
    report = measure(names, work, options.rounds, options.cold)
    for line in text(report):
        print(line)
    if options.json is not None:
        options.json.write_text(json.dumps(report.record(), indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(markdown(report)) + "\n")


if __name__ == "__main__":
    main()
