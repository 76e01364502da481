"""The command line: its commands, and what scripts can rely on (exit codes, one sentence an error)."""

from __future__ import annotations

import io
import logging
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Annotated, ClassVar, NoReturn

import typer

from sdscratch.cli.help import CONTEXT, LazyGroup
from sdscratch.errors import INTERRUPTED, DeviceError, SdscratchError
from sdscratch.show import escaped
from sdscratch.streams import HANG_UP, leave_terminal
from sdscratch.version import __version__

__all__ = ["app", "main"]


class Commands(LazyGroup):
    """Every command: where it is, and the first line of its help."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "txt2img": (
            "sdscratch.cli.generate:txt2img",
            "Draw a picture of PROMPT; - reads the prompt from stdin.",
        ),
        "img2img": ("sdscratch.cli.generate:img2img", "Change the picture INIT towards PROMPT."),
        "explain": (
            "sdscratch.cli.explain:explain",
            "Draw a picture of PROMPT, and show on a page how it came about.",
        ),
        "upscale": (
            "sdscratch.cli.upscale:upscale",
            "Enlarge IMAGE, by an upscaler's file, or drawn over by a model.",
        ),
        "run": ("sdscratch.cli.run:run", "Draw all pictures of PLAN, from one loading of each model."),
        "replay": (
            "sdscratch.cli.replay:replay",
            "Draw pictures again from what they say of themselves, whichever tool made them.",
        ),
        "verify": (
            "sdscratch.cli.verify:verify",
            "Prove that pictures are what their records say: draw them again, compare every pixel.",
        ),
        "convert-weights": (
            "sdscratch.cli.convert:convert_weights",
            "Convert a checkpoint; no code in it ever runs.",
        ),
        "train": (
            "sdscratch.cli.train:app",
            "Train or fine-tune, on one CPU, one GPU, or many machines (torchrun).",
        ),
        "tokens": (
            "sdscratch.cli.tokens:tokens",
            "Show how PROMPT is read: weights, stages, and the chunks of tokens.",
        ),
        "schedule": (
            "sdscratch.cli.schedule:schedule",
            "Show which noise levels and timesteps a sampler visits.",
        ),
        "info": (
            "sdscratch.cli.info:info",
            "Say what FILE is: a model, an add-on, or a picture and how it was made.",
        ),
        "bench": (
            "sdscratch.cli.bench:bench",
            "Measure this machine: loading, text encoding, steps, decoding, memory.",
        ),
        "evaluate": ("sdscratch.cli.evaluate:evaluate", "Measure MODEL on pictures with captions."),
    }


app = typer.Typer(
    name="sdscratch",
    cls=Commands,
    rich_markup_mode=None,  # help.py says why
    context_settings=CONTEXT,
    pretty_exceptions_enable=False,
)


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
    for number in (signal.SIGTERM, HANG_UP):
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, terminate)
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
    print(f"sdscratch: error: {escaped(message)}", file=sys.stderr)
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


def terminate(number: int, _: object) -> NoReturn:
    """Leave by an exception, so that temporary files are removed."""
    if number == HANG_UP:
        leave_terminal()
    sys.exit(128 + number)
