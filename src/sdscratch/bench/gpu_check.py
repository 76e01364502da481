"""Is what a GPU draws what a CPU draws, and how fast? `make gpu-check`.

One script for a machine that is lent for minutes: first what must be right (every sampler, decoding, add-ons,
batches, what is recorded beside what is not), each beside the CPU in float32; then how fast it is. It ends by
itself when its minutes are over, says what it left out, and writes JSON and a table for docs/speed.md. With
`--small` it takes a tiny model of random weights, which a CPU can do in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from sdscratch.bench.gpu_report import Report, Row, line, table
from sdscratch.bench.machine import describe_machine
from sdscratch.bench.measure import measure, named
from sdscratch.bench.pictures import distance
from sdscratch.bench.random_model import draw, random_model
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.device import Placement, choose
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.errors import SdscratchError
from sdscratch.generation.opening import open_all
from sdscratch.generation.pipeline import Pipeline, start
from sdscratch.hardware import device_kind
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import SD1
from sdscratch.options import SD1_DEFAULTS, GenerateOptions, ResolvedOptions

__all__ = ["Work", "check"]

PROMPT, NEGATIVE = "a dog wearing sunglasses", "a cat"
# dB from the CPU's float32 picture. Samplers with fresh noise carry a rounding to the end, those that choose
# their own steps may choose others; a wrong path (noise, timestep, scale) gives less than 20.
EXACT, ROUNDED = 40.0, 24.0
SAME = 1e-4  # relative: one computation twice on one device, as it is and recorded


@dataclass(frozen=True)
class Work:
    """What is compared with what.

    Args:
        files: the model that the pictures are drawn with.
        speed: the model whose steps are timed.
        device: auto, cuda, cuda:N, mps; or cpu, which compares the CPU with itself.
        steps: of each picture.
        batches: how many pictures at once, for the times.
        compile: time `--compile` too.
    """

    files: ModelFiles
    speed: ModelFiles
    device: str
    steps: int = 12
    batches: tuple[int, ...] = (1, 4, 16)
    compile: bool = True
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    side: int | None = None  # of the pictures, in pixels; by default the model's own

    @cached_property
    def sixteen(self) -> Placement:
        """The device with its own 16 bits; a CPU's are bfloat16."""
        own = choose(self.device)
        return choose(self.device, "bfloat16") if own.dtype == torch.float32 else own

    @cached_property
    def pipelines(self) -> dict[str, Pipeline]:
        """The model on the CPU in float32 ("exact"), and on the device in both precisions."""
        return {
            "exact": Pipeline(self.files, choose("cpu", "float32")),
            "float32": Pipeline(self.files, choose(self.device, "float32")),
            self.sixteen.dtype_name: Pipeline(self.files, self.sixteen),
        }

    @property
    def on_device(self) -> dict[str, Pipeline]:
        """Those on the device, by precision."""
        return {name: pipeline for name, pipeline in self.pipelines.items() if name != "exact"}

    def options(self, **asked: Any) -> ResolvedOptions:
        """Of a picture."""
        size = {"width": self.side, "height": self.side}
        values = {"steps": self.steps, "sampler": "euler", "cfg_scale": 4.0} | size | asked
        return GenerateOptions(PROMPT, NEGATIVE, **values).resolve(self.files.defaults, seed=0)


def bar_of(dtype: str) -> float:
    """dB that a picture in this precision must come near to the CPU's."""
    return EXACT if dtype == "float32" else ROUNDED


def near(group: str, name: str, dtype: str, picture: Image.Image, exact: Image.Image) -> Row:
    """A picture beside the CPU's."""
    psnr = distance(picture, exact).psnr
    bar = bar_of(dtype)
    return Row(group, f"{name}, {dtype}", psnr, "dB", bar, psnr is None or psnr >= bar)


def picture_of(pipeline: Pipeline, options: ResolvedOptions) -> Image.Image:
    """One picture, by the stages that everything is drawn by."""
    *_, last = pipeline.steps(options)
    return pipeline.decode(last.latent)[0]


# What must be right


def recorded(work: Work) -> Iterator[Row]:
    """The U-Net as the device runs it best (a CUDA graph) beside the same network called from Python."""
    for dtype, pipeline in work.on_device.items():
        unet = pipeline.networks["unet"]
        config, device = pipeline.files.config, pipeline.placement.device
        side = config.unet.latent_channels, 16, 16
        generator = torch.Generator().manual_seed(0)
        context = torch.randn(1, config.text.length, config.unet.context, generator=generator)
        told = Conditioning(context.to(device)).to(unet.config and next(unet.parameters()).dtype)
        with torch.inference_mode():
            for time_step in (900.0, 20.0):  # the second is played with other inputs than were recorded
                x = torch.randn(1, *side, generator=generator).to(device, next(unet.parameters()).dtype)
                at = torch.tensor([time_step], device=device)
                (best,) = pipeline.networks.computation("unet")(x, at, told)
                plain = unet(x, at, told)
                error = ((best - plain).float().norm() / plain.float().norm()).item()
                name = f"U-Net at t = {time_step:g}, {dtype}"
                yield Row("recorded beside plain", name, error, "relative", SAME, error <= SAME)


def samplers(work: Work) -> Iterator[Row]:
    """A picture of every sampler."""
    for name in work.samplers:
        options = work.options(sampler=name)
        exact = picture_of(work.pipelines["exact"], options)
        for dtype, pipeline in work.on_device.items():
            yield near("samplers", name, dtype, picture_of(pipeline, options), exact)


def noises(work: Work) -> Iterator[Row]:
    """Other noise, other spacings, image-to-image, approximations: the same paths with other numbers."""
    init = picture_of(work.pipelines["exact"], work.options(seed=3))
    ways: tuple[tuple[str, dict[str, Any]], ...] = (
        ("--noise nv", {"noise": "nv", "sampler": "euler_a"}),
        ("--scheduler karras", {"scheduler": "karras", "sampler": "dpm++2m"}),
        ("--cfg-interval", {"cfg_interval": "0.28:5.42"}),
        ("--deep-cache 2", {"deep_cache": 2}),
        ("a prompt with weights and AND", {"prompt": "a (red:1.3) dog AND a hat"}),
    )
    for name, asked in ways:
        options = work.options()
        options = type(options)(**{**asdict(options), **asked})
        exact = picture_of(work.pipelines["exact"], options)
        for dtype, pipeline in work.on_device.items():
            yield near("options", name, dtype, picture_of(pipeline, options), exact)
    options = work.options(strength=0.6)
    *_, last = work.pipelines["exact"].steps(options, init=init)
    exact = work.pipelines["exact"].decode(last.latent)[0]
    for dtype, pipeline in work.on_device.items():
        *_, last = pipeline.steps(options, init=init)
        yield near("options", "img2img", dtype, pipeline.decode(last.latent)[0], exact)


def batches(work: Work) -> Iterator[Row]:
    """Pictures of a batch beside the same ones alone."""
    options = work.options(sampler="dpm++2m_sde")
    for dtype, pipeline in work.on_device.items():
        *_, last = pipeline.steps(options, count=3)
        for seed, image in enumerate(pipeline.decode(last.latent)):
            alone = picture_of(pipeline, type(options)(**{**asdict(options), "seed": seed}))
            yield near("batch beside single", f"seed {seed} of 3 at once", dtype, image, alone)


def loras(work: Work) -> Iterator[Row]:
    """A LoRA on all attention of the U-Net."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        save_file(random_lora(work.files), path)
        opened = open_all(str(work.files.path), lora=f"{path}:0.7")
        exact = picture_of(start(opened, choose("cpu", "float32")), work.options())
        for dtype, pipeline in work.on_device.items():
            drawn = picture_of(start(opened, pipeline.placement), work.options())
            yield near("LoRA", "rank 4 on all attention", dtype, drawn, exact)


def random_lora(files: ModelFiles, rank: int = 4) -> dict[str, torch.Tensor]:
    """Random matrices for the queries and values of every attention, under PEFT's names."""
    pairs: dict[str, torch.Tensor] = {}
    for weight in weights(files.config):
        base = weight.diffusers.removeprefix("unet/").removesuffix(".weight")
        if weight.part != "unet" or not base.endswith((".to_q", ".to_v")):
            continue
        rows, columns = weight.shape[:2]
        pairs[f"unet.{base}.lora_A.weight"] = draw(f"{base} down", torch.empty(rank, columns, device="meta"))
        pairs[f"unet.{base}.lora_B.weight"] = draw(f"{base} up", torch.empty(rows, rank, device="meta")) * 0.2
    return pairs


def decoding(work: Work) -> Iterator[Row]:
    """One latent decoded everywhere, whole and in tiles."""
    *_, last = work.pipelines["exact"].steps(work.options())
    exact = work.pipelines["exact"].decode(last.latent)[0]
    for dtype, pipeline in work.on_device.items():
        drawn = pipeline.decode(last.latent.to(pipeline.placement.device))[0]
        yield near("decode", "whole", dtype, drawn, exact)


# How fast it is


def speed(work: Work) -> Iterator[Row]:
    """Steps a second and memory; guided, Euler."""
    own = {"steps": 20, "sampler": "euler", "width": work.side, "height": work.side}
    resolved = GenerateOptions(PROMPT, NEGATIVE, **own).resolve(work.speed.defaults, seed=0)
    for compiled in (False, True) if work.compile else (False,):
        placement = choose(work.device, compiled=compiled)
        report = measure(work.speed, placement, resolved, batches=work.batches, repeats=2)
        way = f"{placement.dtype_name}{', compiled' if compiled else ''}"
        for batch in work.batches:
            step = report.stages[named("step", batch)].median
            yield Row("speed", f"{batch} at once, {way}", batch / step, "guided steps/s", None, None)
            decode = report.stages[named("decode", batch)].median
            yield Row("speed", f"decode {batch}, {way}", 1000 * decode / batch, "ms a picture", None, None)
        note = report.peak.kind
        yield Row("memory", way, report.peak.bytes / 1e9, "GB at most", None, None, note)


GROUPS: tuple[tuple[str, Callable[[Work], Iterator[Row]]], ...] = (
    ("recorded beside plain", recorded),
    ("decode", decoding),
    ("options", noises),
    ("batch beside single", batches),
    ("LoRA", loras),
    ("samplers", samplers),
    ("speed", speed),
)


def check(work: Work, minutes: float, announce: Callable[[str], None] = lambda _: None) -> Report:
    """Look at everything, until the minutes are over.

    An error of one group is a row that failed, and the others go on.
    """
    begin = time.monotonic()
    report = Report(asdict(describe_machine(work.sixteen)))
    for group, look in GROUPS:
        try:
            for row in look(work):
                report.rows.append(row)
                announce(line(row))
                if time.monotonic() - begin > 60 * minutes:
                    break
        except (SdscratchError, RuntimeError) as error:  # RuntimeError: what PyTorch says of a device
            report.rows.append(Row(group, "error", None, "", None, False, str(error).splitlines()[0]))
            announce(line(report.rows[-1]))
        if time.monotonic() - begin > 60 * minutes:
            report.rows.append(
                Row(group, "the minutes are over", None, "", None, None, "the rest was left out")
            )
            announce(line(report.rows[-1]))
            break
    report.seconds = time.monotonic() - begin
    return report


def small_work(device: str, model: str) -> Work:
    """Little enough for a CPU: few steps, some samplers, and the same model for the times."""
    files = open_all(model).files
    return Work(files, files, device, 2, (1, 2), False, ("euler", "dpm++2m_sde"), 64)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m sdscratch.bench.gpu_check", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps; cpu to try the script")
    parser.add_argument("--model", default="default", help="model that the pictures are drawn with")
    parser.add_argument("--minutes", type=float, default=8.0, help="to end after; loading is counted")
    parser.add_argument("--small", action="store_true", help="few samplers, and no full-size model")
    parser.add_argument("--json", metavar="FILE", type=Path, help="file for the figures")
    asked = parser.parse_args(arguments)
    if device_kind(choose(asked.device).device) == "cpu" and not asked.small:
        print("there is no GPU here; --small tries the script on the CPU", file=sys.stderr)
        return 5
    if asked.small:
        work = small_work(asked.device, asked.model)
    else:
        full = random_model("random sd1", SD1, SD1_DEFAULTS)
        work = Work(open_all(asked.model).files, full, asked.device)
    report = check(work, asked.minutes, lambda said: print(said, file=sys.stderr, flush=True))
    if asked.json is not None:
        asked.json.write_text(json.dumps({**asdict(report), "passed": report.passed}, indent=1) + "\n")
    print(table(report))
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
