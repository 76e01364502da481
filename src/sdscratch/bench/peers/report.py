"""From times and results to ratios, distances, and the tables that people read."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sdscratch.bench.peers.work import Array

__all__ = ["Measured", "Report", "Target", "distances", "markdown", "targets", "text"]

OURS = "sdscratch"


@dataclass
class Measured:
    """What is known of one engine; where `failed` says something, the rest may be missing."""

    name: str
    precision: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    load: float | None = None  # seconds
    peak: int | None = None  # bytes
    steps: list[float] = field(default_factory=list)  # seconds of a guided step, a value a turn
    decodes: list[float] = field(default_factory=list)
    distance: dict[str, float] | None = None  # from the reference
    failed: str | None = None

    @property
    def step(self) -> float | None:
        """The median."""
        return statistics.median(self.steps) if self.steps else None

    @property
    def decode(self) -> float | None:
        """The median."""
        return statistics.median(self.decodes) if self.decodes else None


@dataclass
class Report:
    """One run."""

    machine: dict[str, Any]
    work: dict[str, Any]
    engines: dict[str, Measured]
    reference: str | None = None  # whose results the others are compared with
    cold: dict[str, float] = field(default_factory=dict)  # seconds of whole processes of ours, medians

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"targets": [asdict(target) for target in targets(self)]}


def distances(found: Mapping[str, Array], exact: Mapping[str, Array]) -> dict[str, float]:
    """How far results are from the exact ones.

    Returns:
        Of the prediction: the greatest difference by the exact one's greatest value, and the root mean square
        difference by its root mean square. Of the picture: both differences in levels of 255.
    """
    result: dict[str, float] = {}
    if "prediction" in found and "prediction" in exact:
        most, mean = _differences(found["prediction"], exact["prediction"])
        greatest, size = _differences(exact["prediction"], np.zeros_like(exact["prediction"]))
        result |= {"prediction_max": most / greatest, "prediction_rms": mean / size}
    if "picture" in found and "picture" in exact:
        most, mean = _differences(found["picture"], exact["picture"])
        result |= {"picture_max": most, "picture_rms": mean}
    return result


def _differences(one: Array, other: Array) -> tuple[float, float]:
    """The greatest, and the root mean square."""
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(difference.max()), float(np.sqrt(np.mean(difference**2)))


# Targets


@dataclass(frozen=True)
class Target:
    """A bar, perhaps a further aim, and what was measured, all in `unit` (× is ours by theirs)."""

    what: str
    unit: str
    bar: float
    aim: float | None
    measured: float | None  # None: could not be measured

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.measured is None:
            return "not measured"
        if self.measured > self.bar:
            return "missed"
        return "aim" if self.aim is not None and self.measured <= self.aim else "bar"


# (the stage, the peer, bar, aim): ours by theirs
RATIOS: tuple[tuple[str, str, float, float | None], ...] = (
    ("step", "diffusers-best", 0.75, 0.6),
    ("step", "diffusers", 0.3, None),
    ("step", "stable-diffusion.cpp", 0.12, None),
    ("step", "openvino", 1.0, None),
    ("decode", "diffusers-best", 0.85, 0.7),
)
# (the stage, bar, aim): ours in int8 by ours as it comes, where that was measured
INTEGERS = "sdscratch-int8"
OF_INTEGERS = (("step", 0.7, 0.6), ("decode", 0.75, None))
LOAD, PEAK = 4.0, 2.8  # seconds, GB
COLD = {"help": 0.15, "txt2img": 3.5}  # seconds


def ratio(report: Report, stage: str, peer: str) -> float | None:
    """Our time by theirs."""
    return time_by(report, stage, OURS, peer)


def time_by(report: Report, stage: str, one: str, other: str) -> float | None:
    """One engine's time by another's."""
    times = [getattr(report.engines[name], stage) for name in (one, other) if name in report.engines]
    return times[0] / times[1] if len(times) == 2 and None not in times else None


def targets(report: Report) -> list[Target]:
    """What was aimed at, and what was reached."""
    ours = report.engines.get(OURS, Measured(OURS))
    peak = None if ours.peak is None else ours.peak / 1e9
    return [
        *(Target(f"{s}, by {p}", "×", bar, aim, ratio(report, s, p)) for s, p, bar, aim in RATIOS),
        *(
            Target(f"{stage} in int8, by ours", "×", bar, aim, time_by(report, stage, INTEGERS, OURS))
            for stage, bar, aim in (OF_INTEGERS if INTEGERS in report.engines else ())
        ),
        Target("load", "s", LOAD, None, ours.load),
        Target("peak memory", "GB", PEAK, None, peak),
        *(Target(f"{name}, cold", "s", bar, None, report.cold.get(name)) for name, bar in COLD.items()),
    ]


# Tables

HEAD = ("engine", "step", "ours by it", "decode", "ours by it", "load", "memory")
FAR = ("far from", "prediction max", "rms", "picture max", "rms")


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """The engines' table, without its head."""
    for name, engine in report.engines.items():
        if engine.failed is not None:
            yield (name, f"failed: {engine.failed}")
            continue
        yield (
            name,
            shown(engine.step, "s"),
            shown(ratio(report, "step", name), "×"),
            shown(engine.decode, "s"),
            shown(ratio(report, "decode", name), "×"),
            shown(engine.load, "s"),
            shown(None if engine.peak is None else engine.peak / 1e9, "GB"),
        )


def far_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """How far results are from the reference's."""
    for name, engine in report.engines.items():
        far = engine.distance
        if far and name != report.reference:
            relative = (f"{far['prediction_max']:.1e}", f"{far['prediction_rms']:.1e}")
            yield (name, *relative, f"{far['picture_max']:.0f}", f"{far['picture_rms']:.2f}")


def target_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """The targets' table."""
    for target in targets(report):
        aim = "" if target.aim is None else shown(target.aim, target.unit)
        measured = shown(target.measured, target.unit)
        yield (target.what, shown(target.bar, target.unit), aim, measured, target.verdict)


def shown(value: float | None, unit: str) -> str:
    """A number and its unit, short."""
    return "–" if value is None else f"{value:.2f} {unit}"


def facts(report: Report) -> Iterator[str]:
    """What a table means nothing without."""
    work = report.work
    yield (
        f"{report.machine['processor']}, {work['threads']} threads; {work['width']}×{work['height']}, guided "
        f"(batch 2), {work['steps']} steps a turn, {report.machine['turns']} turns, medians"
    )
    seen: dict[str, str] = {}
    for engine in report.engines.values():
        seen |= engine.versions
    yield ", ".join(f"{name} {version}" for name, version in seen.items())
    yield ", ".join(f"{name}: {e.precision}" for name, e in report.engines.items() if e.precision)


def tables(report: Report) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Heads and rows of all that was measured."""
    yield HEAD, list(rows(report))
    if report.reference is not None:
        yield (f"{FAR[0]} {report.reference}", *FAR[1:]), list(far_rows(report))
    yield ("target", "bar", "aim", "measured", "reached"), list(target_rows(report))


def text(report: Report) -> Iterator[str]:
    """For a terminal."""
    yield from facts(report)
    for head, body in tables(report):
        whole = [head, *body]
        # a failure's sentence is wider than any column
        widths = [max(len(row[i]) for row in whole if i == 0 or len(row) > 2) for i in range(len(head))]
        yield ""
        for row in whole:
            first, *rest = row
            cells = [c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)] if len(row) > 2 else rest
            yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()


def markdown(report: Report) -> Iterator[str]:
    """For a README."""
    for fact in facts(report):
        yield f"* {fact}"
    for head, body in tables(report):
        yield ""
        yield _line(head)
        yield _line(["---", *["---:"] * (len(head) - 1)])
        for row in body:
            yield _line([*row, *[""] * (len(head) - len(row))])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
