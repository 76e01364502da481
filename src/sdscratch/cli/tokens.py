"""`tokens`: how a prompt is cut into the ids that the text encoder reads."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sdscratch.errors import UsageError
from sdscratch.show import printable
from sdscratch.texts import UTF_16, NotText, decode, without_end

if TYPE_CHECKING:
    from sdscratch.text.tokenizer import Tokenizer, Tokens

__all__ = ["tokens"]


def tokens(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The prompt; - reads one a line from stdin.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            "--ckpt",
            envvar="SDSCRATCH_MODEL",
            help="The model whose tokenizer is taken: a file, a diffusers folder, a name, or a hub id.",
        ),
    ] = "default",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Instead of a model's: a folder with vocab.json and merges.txt, or tokenizer.json.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each prompt.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say where a tokenizer was found; show tracebacks.")
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
        UsageError: a line is no text.
    """
    stream = sys.stdin.buffer  # bytes: text would split at carriage returns too
    try:
        for number, line in enumerate(stream, 1):
            if number == 1 and line.startswith(UTF_16):  # whose line feeds are of two bytes
                yield from without_end(decode(line + stream.read(), "on stdin")).split("\n")
                return
            yield decode(line.removesuffix(b"\n"), f"of line {number} on stdin")
    except NotText as error:
        raise UsageError(str(error)) from None


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
