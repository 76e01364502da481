"""`schedule`: which noise levels and timesteps a sampler visits, as each tool spaces them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from sdscratch.checks import parse_sigmas
from sdscratch.diffusion.catalogue import SAMPLERS, SPACINGS
from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule, shortened
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.models.config import ScheduleConfig

__all__ = ["schedule"]

PREDICTIONS = ("epsilon", "v")
ROWS, COLUMNS = 8, 60  # of the plot, at most
EIGHTHS = " ▁▂▃▄▅▆▇█"


def schedule(
    sampler: Annotated[str, typer.Option("--sampler", help=f"Sampler: {', '.join(SAMPLERS)}.")] = "ddpm",
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help=f"Spacing of the noise levels: {', '.join(SPACINGS)}.",
            show_default="the sampler's own",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Number of steps.")] = 30,
    sigmas: Annotated[
        str | None,
        typer.Option(
            "--sigmas", metavar="LIST", help="Noise levels of your own, falling, with commas between."
        ),
    ] = None,
    like: Annotated[
        str, typer.Option("--like", help="Tool whose habits are followed: " + ", ".join(CONVENTIONS) + ".")
    ] = "sdscratch",
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="Strength of image-to-image, 0 to 1: the steps that it runs."),
    ] = None,
    prediction: Annotated[
        str, typer.Option("--prediction", help="Prediction that the network makes: epsilon or v.")
    ] = "epsilon",
    zero_snr: Annotated[
        bool, typer.Option("--zero-snr", help="Noise levels of a model trained with zero terminal SNR.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON, not a table.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
) -> None:
    """Show which noise levels and timesteps a sampler visits.

    Examples:

      sdscratch schedule --sampler "DPM++ 2M Karras" --steps 20

      sdscratch schedule --sampler euler --scheduler beta --like comfyui

      sdscratch schedule --sampler heun --strength 0.5 --like a1111 --json
    """
    if prediction not in PREDICTIONS:
        raise UsageError(f"no prediction is called {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
    if strength is not None and not 0.0 <= strength <= 1.0:
        raise UsageError(f"strength is {strength}, but must be from 0 to 1")
    name, named = parse_sampler(sampler)
    spacing = named if scheduler is None else parse_scheduler(scheduler)
    levels = Schedule(ScheduleConfig(), zero_snr=zero_snr)
    if sigmas is not None:
        if spacing is not None or strength is not None:
            raise UsageError("--sigmas says all noise levels itself; leave --scheduler and --strength out")
        own = parse_sigmas(sigmas)
        path = make_sigma_schedule(levels, name, None, len(own) - 1, like=like, sigmas=own)
    elif strength is not None:
        path = shortened(levels, name, spacing, steps, strength, like=like)
    else:
        path = make_sigma_schedule(levels, name, spacing, steps, like=like)
    count = SAMPLERS[name].evaluations(len(path.timesteps), to_zero=path.sigmas[-1] == 0.0)
    show = show_json if as_json else show_table if sys.stdout.isatty() else show_lines
    show(path, count)


def show_json(path: SigmaSchedule, evaluations: int | None) -> None:
    """For programs: everything, with all digits."""
    facts = {
        "sigmas": path.sigmas,
        "timesteps": path.timesteps,
        "start_scale": path.start_scale,
        "evaluations": evaluations,
    }
    print(json.dumps(facts), flush=True)


def show_lines(path: SigmaSchedule, evaluations: int | None) -> None:
    """For pipes and logs: a line a step, and what there is to say of all."""
    for row in rows(path):
        print("  ".join(f"{cell:>10}" for cell in row))
    print(*notices(path, evaluations), sep="\n", flush=True)


def show_table(path: SigmaSchedule, evaluations: int | None) -> None:
    """For a terminal: the same in a table, and log σ as a small plot."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, style in (("step", "dim"), ("sigma", "cyan"), ("timestep", "")):
        table.add_column(title, justify="right", style=style)
    for row in rows(path):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    for line in (*plot(path.sigmas), *notices(path, evaluations)):
        console.print(Text(line), soft_wrap=True)


def rows(path: SigmaSchedule) -> Iterator[tuple[str, str, str]]:
    """Each step's number, its noise level, and what the network is told; and where the last one ends."""
    for index, (sigma, timestep) in enumerate(zip(path.sigmas, path.timesteps, strict=False), 1):
        yield str(index), f"{sigma:.6g}", f"{timestep:.6g}"
    yield "end", f"{path.sigmas[-1]:.6g}", ""


def notices(path: SigmaSchedule, evaluations: int | None) -> list[str]:
    """What there is to say below the steps."""
    asked = "as often as the error needs" if evaluations is None else f"{evaluations} times"
    return [f"The network is asked {asked}.", f"The start noise is multiplied by {path.start_scale:.6g}."]


def plot(sigmas: Sequence[float]) -> list[str]:
    """Columns as high as log σ, one a step, or the nearest step's where there are too many."""
    shown = [sigma for sigma in sigmas if sigma > 0.0]
    if len(shown) < 2 or shown[0] == shown[-1]:
        return []
    width = min(len(shown), COLUMNS)
    places = [round(column * (len(shown) - 1) / (width - 1)) for column in range(width)]
    low, high = math.log(min(shown)), math.log(max(shown))
    heights = [1 + round((math.log(shown[p]) - low) / (high - low) * (8 * ROWS - 1)) for p in places]
    return [
        "".join(EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in heights).rstrip()
        for row in reversed(range(ROWS))
    ]
