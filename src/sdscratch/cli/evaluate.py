"""`evaluate`: how good a model is, on a folder of pictures or on the built-in model's own kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sdscratch.cli.arguments import DEVICES
from sdscratch.cli.evaluation_tables import show
from sdscratch.cli.progress import make_view
from sdscratch.options import DTYPES, MAX_SEED, check_placement

__all__ = ["evaluate"]

PICTOGRAMS = "pictograms"
RENDERS = 512  # of pictograms, where --limit says nothing


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model to measure: a file, a folder, a name, or a hub id.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder of pictures with captions; or pictograms: renders of the built-in model's kind.",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of pictures to look at.", show_default=f"all; pictograms: {RENDERS}"
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=0, help="Number of prompts to draw and judge; for pictograms.")
    ] = 1000,
    judge: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Judge that says what a picture shows, made by make judge; for pictograms.",
            show_default="the user's own, or the project's",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that keeps what is drawn, and from which a stopped command goes on; for pictograms.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "-s", "--seed", min=0, max=MAX_SEED - 2**32, help="Seed of noise, timesteps and prompts."
        ),
    ] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Number of pictures at once.")] = 8,
    device: Annotated[str, typer.Option("--device", help=DEVICES)] = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help=f"Precision of the arithmetic: auto, {', '.join(DTYPES)}.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON, not tables.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but the result.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more, and show tracebacks.")] = False,
) -> None:
    """Measure MODEL on pictures with captions.

    What the autoencoder loses (PSNR, and SSIM of luma), and the U-Net's loss by timestep. On pictograms also
    how often pictures show what their prompts ask for, as a small classifier sees it, and how crisp they are
    beside renders: flat where it should be flat, sharp at edges.

    Examples:

      sdscratch evaluate model.safetensors photos/

      sdscratch evaluate model.safetensors photos/ --limit 64 --json

      sdscratch evaluate default pictograms --prompts 300 --pictures drawn/
    """
    check_placement(device, dtype)
    with make_view(quiet=quiet, verbose=verbose) as view:
        with view.stage("opening", None):
            from sdscratch.evaluation.evaluation import Evaluation
            from sdscratch.generation.pipeline import load

            pipeline = load(model, device=device, dtype=dtype)
        evaluation = Evaluation(pipeline, view, batch_size, seed)
        if data == PICTOGRAMS:
            evaluation.on_pictograms(limit or RENDERS, prompts, judge, pictures)
        else:
            evaluation.on_folder(Path(data), limit)
        facts = {"model": model, "model_hash": pipeline.files.hash(), "data": data, **evaluation.facts()}
    print(json.dumps(facts)) if as_json else show(facts)
