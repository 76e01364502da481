"""The command line: its commands, and what scripts can rely on (exit codes, one sentence an error)."""

from __future__ import annotations

import io
import logging
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from sdscratch import __version__
from sdscratch.cli import bench, convert, evaluate, generate, info, shapes, tokens, train
from sdscratch.errors import INTERRUPTED, DeviceError, SdscratchError

__all__ = ["app", "main"]

app = typer.Typer(
    name="sdscratch",
    help="Stable Diffusion 1.x, written from scratch: pictures from words, on your own machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("txt2img", help=generate.TXT2IMG_HELP)(generate.txt2img)
app.command("img2img", help=generate.IMG2IMG_HELP)(generate.img2img)
app.command("convert-weights")(convert.convert_weights)
train.app.command("shapes")(shapes.shapes)
app.add_typer(train.app, name="train")
app.command("tokens")(tokens.tokens)
app.command("info")(info.info)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)


def print_version(asked: bool) -> None:
    """Print the version and end, where asked."""
    if asked:
        typer.echo(f"sdscratch {__version__}")
        raise typer.Exit


@app.callback()
def sdscratch(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stable Diffusion 1.x, written from scratch: pictures from words, on your own machine."""


def main() -> NoReturn:
    """Run the command line and end with its exit code."""
    signal.signal(signal.SIGTERM, terminate)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no locale is a reason to fail
    verbose = any(word in ("-v", "--verbose") for word in sys.argv[1:])
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = report(error, verbose)
    if code == INTERRUPTED:
        print("sdscratch: interrupted", file=sys.stderr)
    sys.exit(code)


def report(error: Exception, verbose: bool) -> int:
    """Say what went wrong in one sentence, and the exit code that belongs to it."""
    if verbose:
        traceback.print_exception(error)
    message, code = explain(error)
    if message:  # none where no command was given and the help has been shown
        print(f"sdscratch: error: {message}", file=sys.stderr)
    return code


def explain(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for an error of any kind."""
    match error:
        case SdscratchError():
            return str(error), error.exit_code
        case typer.TyperException():
            return error.format_message(), error.exit_code
        case MemoryError():
            return "out of memory; close other programs, or ask for less", DeviceError.exit_code
        case _:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            return f"unexpected {words}; -v shows where", SdscratchError.exit_code


def terminate(*_: object) -> NoReturn:
    """Leave by an exception, so that temporary files are removed."""
    sys.exit(128 + signal.SIGTERM)
