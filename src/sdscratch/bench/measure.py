"""Measuring: every stage between a file and a picture, warm-up apart, medians of stated repeats."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from sdscratch.bench.approximations import Approximation, approximations
from sdscratch.bench.machine import Machine, describe_machine, synchronize, watch_memory
from sdscratch.bench.memory import Peak
from sdscratch.bench.pictures import Distance, distance
from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.taesd import TaesdFile
from sdscratch.device import Placement, choose
from sdscratch.generation.pipeline import Pipeline
from sdscratch.hardware import device_kind
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ModelConfig
from sdscratch.options import ResolvedOptions

__all__ = ["Report", "Stage", "measure", "step_operations"]


@dataclass(frozen=True)
class Stage:
    """How long one stage took, each time that it was measured."""

    seconds: tuple[float, ...]
    pictures: int = 1  # at once

    @property
    def median(self) -> float:
        """Seconds, of all the repeats' the middle."""
        return statistics.median(self.seconds)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"median": self.median, **asdict(self)}


@dataclass
class Report:
    """All that was measured."""

    machine: Machine
    model: str
    options: ResolvedOptions
    own_steps: int  # that the model would like a picture to have
    stages: dict[str, Stage] = field(default_factory=dict)
    peak: Peak = field(default_factory=lambda: Peak("not measured"))
    step_operations: float = 0.0  # of one picture's step: additions and multiplications
    matrix_rate: float = 0.0  # of the same a second, in a matrix product that this machine likes
    parity: Distance | None = None
    approximations: list[Approximation] = field(default_factory=list)

    @property
    def whole_picture(self) -> float:
        """Seconds of a picture of the model's own steps, reckoned from the stages; one picture at once."""
        text, step, decode = (self.stages[name].median for name in ("text encoding", "step", "decode"))
        return text + self.own_steps * step + decode

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        whole = self.whole_picture if "step" in self.stages else None
        return asdict(self) | {
            "whole_picture": whole,
            "stages": {name: stage.record() for name, stage in self.stages.items()},
        }


def measure(
    files: ModelFiles,
    placement: Placement,
    options: ResolvedOptions,
    *,
    batches: Sequence[int] = (1,),
    repeats: int = 3,
    compare: bool = False,
    approximate: bool = False,
    taesd: TaesdFile | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Report:
    """Load the model and draw, again and again.

    Everything is done once without being timed; memory is watched then, so that watching costs no time.
    A step's time is that of all of a picture's steps by their number: what is done once a picture is in it.

    Args:
        options: of every picture; prompts are made longer by a number, so that each is encoded anew.
        batches: how many pictures at once; measured one after another.
        repeats: how often each stage is timed.
        compare: draw one picture on the CPU in float32, too, and say how far the one drawn here is from it.
        approximate: measure what approximations gain, and how far they lead from the exact pictures.
        taesd: what draws previews among them.
        announce: is told what comes next.

    Raises:
        SdscratchError: whatever can go wrong while drawing.
    """
    report = Report(describe_machine(placement), files.name, options, files.defaults.steps)
    pipeline = Pipeline(files, placement, taesd=taesd)
    announce("warming up")
    with watch_memory(placement.device) as report.peak:
        load(pipeline, options)
        draw(pipeline, options, max(batches))
    announce("loading")
    report.stages["load"] = Stage(tuple(timed_load(pipeline, options) for _ in range(repeats)))
    for batch in batches:
        announce(f"drawing {batch} at once" if batch > 1 else "drawing")
        draw(pipeline, options, batch)  # a network just loaded, or met by another shape, is slow once
        runs = [draw(pipeline, numbered(options, index), batch) for index in range(1, repeats + 1)]
        for name in runs[0]:
            report.stages[named(name, batch)] = Stage(tuple(run[name] for run in runs), batch)
    announce("counting")
    report.step_operations = step_operations(files.config, options)
    report.matrix_rate = matrix_rate(placement)
    if approximate:
        announce("approximating")
        report.approximations = list(approximations(pipeline, options))
    if compare:
        announce("drawing on the CPU in float32")
        report.parity = parity(pipeline, options)
    return report


def named(stage: str, batch: int) -> str:
    """A stage's name in the report."""
    return stage if batch == 1 else f"{stage}, {batch} at once"


def numbered(options: ResolvedOptions, index: int) -> ResolvedOptions:
    """The same picture as far as time goes, with prompts that no cache knows."""
    prompt, negative = (f"{text} {index}" for text in (options.prompt, options.negative_prompt))
    return replace(options, prompt=prompt, negative_prompt=negative)


def load(pipeline: Pipeline, options: ResolvedOptions) -> None:
    """Load what drawing needs."""
    for _ in pipeline.load(pipeline.parts_for(options)):
        pass


def timed_load(pipeline: Pipeline, options: ResolvedOptions) -> float:
    """Seconds of loading all of it again."""
    pipeline.networks.clear()
    with stopwatch(pipeline.placement.device) as times:
        load(pipeline, options)
    return times[0]


def draw(pipeline: Pipeline, options: ResolvedOptions, batch: int) -> dict[str, float]:
    """Draw `batch` pictures at once; seconds by stage."""
    device = pipeline.placement.device
    steps = pipeline.steps(options, count=batch)
    with stopwatch(device) as text:
        next(steps)
    with stopwatch(device) as denoising:
        *_, last = steps
    with stopwatch(device) as decoding:
        pipeline.decode(last.latent)
    return {
        "text encoding": text[0],
        "step": denoising[0] / last.total,
        "decode": decoding[0],
        "picture": text[0] + denoising[0] + decoding[0],
    }


@contextmanager
def stopwatch(device: torch.device) -> Iterator[list[float]]:
    """A list that holds the seconds, once the context has ended and the device has done its work."""
    seconds: list[float] = []
    synchronize(device)
    start = time.perf_counter()
    yield seconds
    synchronize(device)
    seconds.append(time.perf_counter() - start)


# What the arithmetic asks for, and what this machine could give


def step_operations(config: ModelConfig, options: ResolvedOptions) -> float:
    """Additions and multiplications of one picture's step, counted without computing anything."""
    halves = 2 if options.cfg_scale > 1.0 else 1
    downscale = config.autoencoder.downscale
    sides = (options.height // downscale, options.width // downscale)
    network = empty_network("unet", config)
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        x = torch.empty(halves, config.unet.latent_channels, *sides)
        told = Conditioning(torch.empty(halves, config.text.length, config.unet.context))
        network(x, torch.empty(halves), told)
    return float(counter.get_total_flops())


def matrix_rate(placement: Placement) -> float:
    """Operations a second of a large matrix product: the best of some."""
    side = 2048 if device_kind(placement.device) == "cpu" else 8192
    a = torch.ones(side, side, device=placement.device, dtype=placement.dtype)
    with torch.inference_mode():
        times = []
        for _ in range(5):
            with stopwatch(placement.device) as seconds:
                a @ a
            times += seconds
    return 2.0 * side**3 / min(times)


# The same picture elsewhere


def parity(pipeline: Pipeline, options: ResolvedOptions) -> Distance:
    """How far this placement's picture is from that of the CPU in float32."""

    def picture(drawn_by: Pipeline) -> Image.Image:
        *_, last = drawn_by.steps(options)
        return drawn_by.decode(last.latent)[0]

    exact = picture(Pipeline(pipeline.files, choose("cpu", "float32")))
    return distance(picture(pipeline), exact)
