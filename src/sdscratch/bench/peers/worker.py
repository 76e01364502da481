"""One engine in a process of its own: reads commands from stdin, answers each with a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from sdscratch.bench.memory import watch_process
from sdscratch.bench.peers.engine import Engine
from sdscratch.bench.peers.engines import ENGINES, convert
from sdscratch.bench.peers.work import Work

__all__ = ["main"]


def start(engine: Engine) -> dict[str, Any]:
    """Load as often as the engine asks for, and run everything once; memory is watched meanwhile."""
    versions = engine.versions()  # importing is not loading
    with watch_process() as peak:
        for _ in range(engine.reloads):
            began = time.perf_counter()
            engine.load()
            load = time.perf_counter() - began
        first = turn(engine)
    return {
        "versions": versions,
        "precision": engine.precision,
        "load": load,
        "peak": asdict(peak),
        "once": engine.once,
        "first": first,
    }


def turn(engine: Engine) -> dict[str, Any]:
    """Steps and a decoding, timed."""
    return {"step": engine.steps(), "decode": engine.decode()}


def results(engine: Engine, path: str) -> dict[str, Any]:
    """Save what was computed, as far as it can be had."""
    found = {"prediction": engine.prediction(), "picture": engine.picture()}
    arrays: dict[str, Any] = {name: array for name, array in found.items() if array is not None}
    np.savez(path, **arrays)
    return {}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {"start": start, "turn": turn, "results": results}


def main() -> None:
    """Serve until stdin ends."""
    # what engines print belongs on stderr; stdout is for answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    name, work = sys.argv[1], Work(**json.loads(sys.argv[2]))
    if name == "convert":
        convert(work)
        return
    engine = ENGINES[name](work)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            answer = COMMANDS[command](engine, *arguments)
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
