"""`bench`: how fast this machine is, as one table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sdscratch.cli.arguments import DEVICES
from sdscratch.cli.info import show, size
from sdscratch.cli.progress import make_view
from sdscratch.errors import UsageError
from sdscratch.jobs.options import parse_size
from sdscratch.models.config import SD1
from sdscratch.options import DTYPES, GenerateOptions, check_placement

if TYPE_CHECKING:
    from sdscratch.bench.measure import Report, Stage
    from sdscratch.checkpoints.model import ModelFiles

__all__ = ["bench"]

RANDOM = {"sd1": SD1}
PROMPT, NEGATIVE = "a dog wearing sunglasses", "a cat"
SAMPLER = "euler"  # a step of it is one pass of the U-Net


def bench(
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            "--ckpt",
            help="Model to measure: a file, a folder, a name, or a hub id.",
            show_default="the built-in model",
        ),
    ] = None,
    random: Annotated[
        str | None,
        typer.Option(
            "--random",
            metavar="SHAPE",
            help=f"Shape of random weights to measure instead, without any file: {', '.join(RANDOM)}.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Tokenizer to use: a folder with vocab.json and merges.txt, or a tokenizer.json.",
            show_default="the model's own",
        ),
    ] = None,
    picture_size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Size of the pictures.", show_default="the model's own"),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Number of denoising steps of each picture.")] = 4,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size",
            min=1,
            metavar="N",
            help="Number of pictures at once; repeatable.",
            show_default="1",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Number of times that everything is measured.")
    ] = 3,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity", help="Compare a picture with the one that the CPU draws in float32, too (slow)."
        ),
    ] = False,
    approximations: Annotated[
        bool,
        typer.Option(
            "--approximations",
            help="Measure what each approximation gains in speed and loses in quality, too (slow).",
        ),
    ] = False,
    taesd: Annotated[
        str | None,
        typer.Option(
            "--taesd", metavar="FILE", help="Tiny autoencoder whose previews --approximations measures."
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the U-Net first.")] = False,
    device: Annotated[str, typer.Option("--device", help=DEVICES)] = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help=f"Precision of the arithmetic: auto, {', '.join(DTYPES)}.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON, not a table.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but the table.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more, and show tracebacks.")] = False,
) -> None:
    """Measure this machine: loading, text encoding, steps, decoding, memory.

    Everything runs once untimed, then --repeats times; the table shows
    medians. Close other programs first.

    Examples:

      sdscratch bench

      sdscratch bench --random sd1

      sdscratch bench -m v1-5.safetensors --size 768x512 --json

      sdscratch bench --random sd1 --batch-size 1 --batch-size 16 --parity
    """
    check_placement(device, dtype)
    if model is not None and random is not None:
        raise UsageError("--model and --random both say which weights; give one of them")
    if random is not None and random not in RANDOM:
        raise UsageError(f"no shape is called {random!r}; choose one of {', '.join(RANDOM)}")
    width, height = parse_size(picture_size) if picture_size is not None else (None, None)
    options = GenerateOptions(
        PROMPT, NEGATIVE, width=width, height=height, steps=steps, seed=0, sampler=SAMPLER
    )
    with make_view(quiet=quiet, verbose=verbose) as view:
        files = find(model, random, tokenizer)
        from sdscratch.bench.measure import measure
        from sdscratch.checkpoints.taesd import open_taesd
        from sdscratch.device import choose

        placement = choose(device, dtype, compiled=compile)
        report = measure(
            files,
            placement,
            options.resolve(files.defaults, 0),
            batches=batch_size or [1],
            repeats=repeats,
            compare=parity,
            approximate=approximations,
            taesd=open_taesd(taesd, files.config.autoencoder) if taesd is not None else None,
            announce=view.note,
        )
    if as_json:
        print(json.dumps(report.record()))
    else:
        show_report(report)


def find(model: str | None, random: str | None, tokenizer: str | None) -> ModelFiles:
    """The model to be measured."""
    if random is not None:
        from sdscratch.bench.random_model import random_model

        return random_model(f"random {random}", RANDOM[random])
    from sdscratch.checkpoints.model import open_model

    files = open_model(model or "default", tokenizer=tokenizer)
    _ = files.tokenizer  # a missing one is said before gigabytes are loaded
    return files


def show_report(report: Report) -> None:
    """The report as people read it, at most 80 columns wide."""
    machine, options = report.machine, report.options
    guidance = "guided" if options.cfg_scale > 1.0 else "no guidance"
    show(
        ("model", report.model),
        ("processor", f"{machine.processor}, {machine.threads} threads"),
        ("computing on", machine.reason),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("picture", f"{options.width}×{options.height}, {options.steps} steps, {guidance}"),
    )
    print(f"\n{'stage':<28}{'median':>10}{'least':>10}{'most':>10}{'times':>7}  a second")
    for name, stage in report.stages.items():
        print(stage_line(name, stage))
    print()
    show(("peak memory", f"{size(report.peak.bytes)}, {report.peak.kind}, loading and drawing"))
    show(*arithmetic(report))
    if "step" in report.stages:
        show(
            (
                "a picture",
                f"of {report.own_steps} steps, the model's own: {report.whole_picture:.1f} s, reckoned",
            )
        )
    if report.parity is not None:
        psnr = "the same" if report.parity.psnr is None else f"{report.parity.psnr:.1f} dB"
        levels = f"at most {report.parity.most}, on average {report.parity.mean:.2g} levels of 255"
        show(("parity", f"{psnr}, {levels} from the CPU's picture in float32"))

    if report.approximations:
        print(f"\n{'approximation':<28}{'faster':>10}{'from the exact picture':>26}")
    for kind in report.approximations:
        far = "the same" if kind.psnr is None else f"{kind.psnr:.1f} dB"
        print(f"{kind.name:<28}{kind.faster:>8.2f} ×{far:>26}")


def stage_line(name: str, stage: Stage) -> str:
    """One stage's times, and how many steps or pictures that is a second."""
    columns = "".join(f"{s:>8.3f} s" for s in (stage.median, min(stage.seconds), max(stage.seconds)))
    rate = f"{stage.pictures / stage.median:.3g}" if name.startswith(("step", "decode", "picture")) else ""
    return f"{name:<28}{columns}{len(stage.seconds):>7}  {rate}".rstrip()


def arithmetic(report: Report) -> Iterator[tuple[str, str]]:
    """What share of this machine's matrix rate the steps reach."""
    work = f"{report.step_operations / 1e9:,.4g} GFLOP a picture"
    best = f"{report.matrix_rate / 1e12:.3g} that a matrix product reaches"
    for name, stage in report.stages.items():
        if name.startswith("step"):
            rate = stage.pictures * report.step_operations / stage.median
            share = 100.0 * rate / report.matrix_rate
            yield name, f"{work}: {rate / 1e12:.3g} TFLOP/s, {share:.0f} % of the {best}"
