"""`convert-weights`: any checkpoint in; a safe, self-contained single file, or a diffusers folder, out."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdscratch.checkpoints.places import EMBEDDED, find_local
from sdscratch.cli.progress import Advance, View, make_view
from sdscratch.errors import UsageError
from sdscratch.home import expanded
from sdscratch.show import listed, printable

if TYPE_CHECKING:
    from sdscratch.checkpoints.model import ModelFiles
    from sdscratch.checkpoints.names import Layout

__all__ = ["convert_weights"]

log = logging.getLogger(__name__)

MEGABYTE = 10**6
LISTED = 40  # dropped entries that are told by name; --json tells all


def convert_weights(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A .safetensors, .ckpt or .pt file, a diffusers folder, a name in ./weights, or a hub id.",
        ),
    ],
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="DST",
            help="The file or folder to make.  [beside SRC, named like it]",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Literal["ldm", "diffusers"],
        typer.Option("--to", help="ldm: one .safetensors file. diffusers: a folder for from_pretrained."),
    ] = "ldm",
    dtype: Annotated[
        Literal["keep", "float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="What the weights are stored in."),
    ] = "keep",
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the moving averages that some files keep beside the weights.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="To put inside: a folder with vocab.json and merges.txt, or tokenizer.json.  [the model's]",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:WEIGHT]",
            help="A LoRA to bake in: a file, or a name in ./loras or the user's loras; repeatable.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST if it exists.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Read the result back and compare every tensor."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show tracebacks.")] = False,
) -> None:
    """Convert a checkpoint; no code in it ever runs.

    The result holds all that sdscratch needs: weights, shape, tokenizer and default options. Other programs
    read it as they would any file.

    Examples:

      sdscratch convert-weights model.ckpt

      sdscratch convert-weights model.ckpt small.safetensors --dtype float16

      sdscratch convert-weights model.safetensors folder --to diffusers

      sdscratch convert-weights model.ckpt inky.safetensors --lora ink:0.7
    """
    with make_view(quiet=quiet, verbose=verbose) as view:
        with view.stage("opening", None):
            from sdscratch.checkpoints.model import open_model

            model = open_model(source, ema=ema, tokenizer=tokenizer, lora=lora or ())
            chosen = None if dtype == "keep" else dtype
            path = choose_path(model, source, destination, to, chosen, ema)
        with view.stage("hashing", None):
            model.hash()
        with Stages(view) as stages:
            from sdscratch.checkpoints.convert import convert

            done = convert(
                model, path, to, dtype=chosen, overwrite=overwrite, verify=verify, report=stages.report
            )
        if done.not_finite:
            log.warning(
                "%s holds NaN or infinity in %s, which was copied as it is: pictures by it may be black; "
                "get the model again, or another copy",
                printable(model.path),
                listed(done.not_finite),
            )
        if done.dropped:
            view.note(f"dropped, for no picture needs it: {summary(done.dropped)}")
    if as_json:
        print(json.dumps({**asdict(done), "path": str(done.path)}))
    else:
        print(done.path)


def choose_path(
    model: ModelFiles, source: str, destination: str | None, layout: Layout, dtype: str | None, ema: bool
) -> Path:
    """Where the result goes: DST, or a name like SRC's in the folder DST, or beside SRC."""
    from sdscratch.checkpoints.convert import default_destination

    if destination == "":
        raise UsageError("DST is empty; name a file or a folder")
    if destination is None:
        # what the package or the hub's cache holds is no place to write to
        users = source != EMBEDDED and find_local(source) is not None
        beside = model.path.parent if users else Path()
        return default_destination(model, layout, beside, dtype=dtype, ema=ema)
    path = expanded(destination)
    if layout == "ldm" and (path.is_dir() or destination.endswith("/")):
        return default_destination(model, layout, path, dtype=dtype, ema=ema)
    return path


class Stages:
    """A bar for each stage of a conversion, in megabytes."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.stack = ExitStack()
        self.stage = ""
        self.advance: Advance = lambda done: None

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def report(self, stage: str, done: int, total: int) -> None:
        """Show that so many bytes are done; a new stage gets a new bar."""
        if stage != self.stage:
            self.stack.close()
            self.advance = self.stack.enter_context(self.view.stage(stage, round(total / MEGABYTE, 1), "MB"))
            self.stage = stage
        self.advance(done / MEGABYTE)


def summary(names: Sequence[str]) -> str:
    """Names in one line; the hundreds of averages as one."""
    groups = Counter(re.sub(r"\Amodel_ema\.\w+", "model_ema.*", name) for name in names)
    told = [
        printable(name) if count == 1 else f"{printable(name)} ({count} tensors)"
        for name, count in groups.items()
    ]
    rest = len(told) - LISTED
    return ", ".join(told[:LISTED]) + (f" and {rest} more (--json tells all)" if rest > 0 else "")
