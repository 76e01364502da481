"""`tokens`: how a prompt is cut into the ids that the text encoder reads."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sdscratch.errors import UsageError
from sdscratch.tensorfiles.sniff import printable

if TYPE_CHECKING:
    from sdscratch.text.tokenizer import Tokenizer, Tokens

__all__ = ["tokens"]


def tokens(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Prompt to take apart; - reads one a line from stdin.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            "--ckpt",
            envvar="SDSCRATCH_MODEL",
            help="Model whose tokenizer is used: a file, a diffusers folder, a name, or a hub id.",
            show_default="the built-in model",
        ),
    ] = "default",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Tokenizer to use: a folder with vocab.json and merges.txt, or a tokenizer.json.",
            show_default="the model's own",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each prompt.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say where a tokenizer was found, and show tracebacks.")
    ] = False,
) -> None:
    """Show how PROMPT is cut into tokens, and where there is no room for more.

    Examples:

      sdscratch tokens "a dog wearing sunglasses"

      sdscratch tokens "an astronaut" -m v1-5-pruned-emaonly.safetensors

      sdscratch tokens - --json < prompts.txt
    """
    if verbose:
        logging.getLogger("sdscratch").setLevel(logging.INFO)
    chosen = open_tokenizer(model, tokenizer)
    show = show_json if as_json else show_table if sys.stdout.isatty() else show_lines
    for text in read_lines() if prompt == "-" else [prompt]:
        show(chosen.encode(text))


def open_tokenizer(model: str, tokenizer: str | None) -> Tokenizer:
    """The tokenizer named, else the model's; no weights are read."""
    if tokenizer is not None:
        from sdscratch.text.tokenizer import Tokenizer

        return Tokenizer.from_path(tokenizer)
    from sdscratch.checkpoints.model import open_model

    return open_model(model).tokenizer


def read_lines() -> Iterator[str]:
    """One prompt a line, each as soon as it comes; nothing but a line feed ends one.

    Raises:
        UsageError: a line is not UTF-8.
    """
    for number, line in enumerate(sys.stdin.buffer, 1):  # bytes: text would split at carriage returns too
        try:
            yield line.removesuffix(b"\n").decode()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"byte {error.start + 1} of line {number} on stdin is not UTF-8; convert the prompts to UTF-8"
            ) from None


def show_json(tokens: Tokens) -> None:
    """For programs: a line a prompt, ids with start and end, unpadded."""
    line = {"ids": tokens.ids, "pieces": tokens.pieces, "truncated": tokens.truncated}
    print(json.dumps(line), flush=True)  # ASCII, so that it can be printed whatever the locale


def show_lines(tokens: Tokens) -> None:
    """For pipes and logs: a line a token, what was cut, and an empty line."""
    lines = [f"{place:>4}  {id:>6}  {piece}" for place, id, piece in rows(tokens)]
    print("\n".join([*lines, *notices(tokens)]), end="\n\n", flush=True)


def show_table(tokens: Tokens) -> None:
    """For a terminal: the same in a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("#", justify="right", style="dim")
    table.add_column("id", justify="right", style="cyan")
    table.add_column("piece", overflow="fold")
    for place, id, piece in rows(tokens):
        table.add_row(str(place), str(id), Text(piece))  # Text: square brackets in a piece are no markup
    console = Console(highlight=False)
    console.print(table)
    for notice in notices(tokens):
        console.print(Text(notice, style="yellow"), soft_wrap=True)


def rows(tokens: Tokens) -> Iterator[tuple[int, int, str]]:
    """Each token's place, counted from 1, its id and its piece."""
    for place, (id, piece) in enumerate(zip(tokens.ids, tokens.pieces, strict=True), 1):
        yield place, id, printable(piece)


def notices(tokens: Tokens) -> list[str]:
    """What there is to say below the tokens."""
    from sdscratch.text.prompt import cut_notice

    return [cut_notice(tokens)] if tokens.truncated else []
