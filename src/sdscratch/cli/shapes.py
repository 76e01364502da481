"""`train shapes`: a small captioned data set of coloured shapes, to train a first model on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sdscratch.cli.progress import make_view
from sdscratch.cli.telling import print_line
from sdscratch.options import MAX_SEED

__all__ = ["shapes"]


def shapes(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to fill; made if missing, and else empty.")
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="Number of pictures.")] = 4000,
    size: Annotated[
        int, typer.Option("--size", min=16, max=1024, help="Width and height of each picture in pixels.")
    ] = 64,
    seed: Annotated[
        int,
        typer.Option(
            "-s", "--seed", min=0, max=MAX_SEED, help="Seed of the pictures: another one makes others."
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON, not the path.")] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print nothing but results and errors.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
) -> None:
    """Make a data set to begin with: coloured shapes, each with its caption.

    "a red circle", "two blue squares on a yellow background", … Each shape
    lacks one colour in all pictures: there is no green circle and no red star.
    Ask the trained model for those.

    Examples:

      sdscratch train shapes my-shapes

      sdscratch train shapes large --count 20000 --size 128 --seed 1
    """
    from sdscratch.training.dataset.shapes import write_shapes

    with make_view(quiet=quiet, verbose=verbose) as view, view.stage("drawing", count, "picture") as advance:
        write_shapes(folder, count, size, seed, lambda _: advance(1))
    print_line(json.dumps({"path": str(folder), "pictures": count}) if as_json else str(folder))
