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
        str | None,
        typer.Argument(
            metavar="SRC",
            help="Model to convert: a .safetensors, .ckpt or .pt file, a diffusers folder, a name in "
            "./weights, or a hub id. Left out with --merge and --add-difference, which name the models.",
            show_default=False,
        ),
    ] = None,
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="DST",
            help="File or folder to make.",
            show_default="beside SRC, named like it",
        ),
    ] = None,
    to: Annotated[
        Literal["ldm", "diffusers"],
        typer.Option(
            "--to",
            help="Layout to write: ldm is one .safetensors file (or .gguf, if DST is called so), diffusers a "
            "folder for from_pretrained.",
        ),
    ] = "ldm",
    dtype: Annotated[
        Literal["keep", "float32", "bfloat16", "float16", "int8", "q8_0"],
        typer.Option(
            "--dtype",
            help="Precision that the weights are stored in. int8 and q8_0 take half of the room of float16, "
            "also in memory.",
        ),
    ] = "keep",
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the moving averages that some files keep beside the weights.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Tokenizer to put inside: a folder with vocab.json and merges.txt, or a tokenizer.json.",
            show_default="the model's own",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:WEIGHT[:UNET_WEIGHT]]",
            help="LoRA to bake in: a file, or a name in ./loras or in loras of the user's data folder; "
            "repeatable.",
            show_default=False,
        ),
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option(
            "--vae",
            metavar="FILE",
            help="VAE to put in place of the model's: a file, a diffusers folder, a name in ./weights.",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            "--merge",
            metavar="A:0.7,B:0.3",
            help="Models to add up instead of SRC, each with its share; all but weights is the first one's.",
            show_default=False,
        ),
    ] = None,
    add_difference: Annotated[
        str | None,
        typer.Option(
            "--add-difference",
            metavar="A,B,C[:F]",
            help="Sum A + F (B - C) to convert instead of SRC. With an inpainting model as A and what it was "
            "made from as C, B inpaints.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST if it exists.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Read the result back and compare every tensor."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON, not the path.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more, and show tracebacks.")] = False,
) -> None:
    """Convert a checkpoint; no code in it ever runs.

    The result holds all that sdscratch needs: weights, shape, tokenizer and default options. Other programs
    read it as they would any file.

    Examples:

      sdscratch convert-weights model.ckpt

      sdscratch convert-weights model.ckpt small.safetensors --dtype float16

      sdscratch convert-weights model.ckpt small.safetensors --dtype int8

      sdscratch convert-weights model.ckpt small.gguf --dtype q8_0

      sdscratch convert-weights model.safetensors folder --to diffusers

      sdscratch convert-weights model.ckpt inky.safetensors --lora ink:0.7

      sdscratch convert-weights both.safetensors --merge one:0.7,two:0.3

      sdscratch convert-weights new.safetensors --add-difference inpaint,mine,v1
    """
    with make_view(quiet=quiet, verbose=verbose) as view:
        with view.stage("opening", None):
            source, destination, model = open_source(
                source, destination, merge, add_difference, ema, tokenizer, without_vae=vae is not None
            )
            from sdscratch.addons.apply import add, refuse_ranges

            model = add(model, lora=lora or (), vae=vae)
            refuse_ranges(model, "a file of weights knows no steps")
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


def open_source(
    source: str | None,
    destination: str | None,
    merge: str | None,
    difference: str | None,
    ema: bool,
    tokenizer: str | None,
    *,
    without_vae: bool = False,
) -> tuple[str, str | None, ModelFiles]:
    """SRC, DST and the model to convert: SRC's, or one that is made of others, whose first then is SRC.

    Raises:
        UsageError: nothing is named, or too much.
    """
    from sdscratch.addons.merge import open_difference, open_merged, parse_difference, parse_merge
    from sdscratch.checkpoints.model import open_model

    if merge is None and difference is None:
        if source is None:
            raise UsageError("there is nothing to convert; name a model, or say --merge A:0.7,B:0.3")
        files = open_model(source, ema=ema, tokenizer=tokenizer, without_vae=without_vae)
        return source, destination, files
    if merge is not None and difference is not None:
        raise UsageError("--merge and --add-difference are one or the other; convert twice")
    if destination is None:  # the only name given is the result's
        source, destination = None, source
    if merge is not None:
        shares = parse_merge(merge)
        total = sum(share.factor for share in shares)
        if abs(total - 1) > 1e-6:
            log.warning("the shares of --merge add up to %g, so the weights' size changes; 1 is usual", total)
        first, model = shares[0].name, open_merged(shares, ema=ema, tokenizer=tokenizer)
        named = [share.name for share in shares]
    else:
        first, plus, minus, factor = parse_difference(difference or "")
        model = open_difference(first, plus, minus, factor, ema=ema, tokenizer=tokenizer)
        named = [first, plus, minus]
    if source is not None and source not in named:
        raise UsageError(f"SRC is {source}, and the option names the models; leave out SRC")
    return first, destination, model


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
