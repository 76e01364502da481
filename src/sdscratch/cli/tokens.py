"""`tokens`: how a prompt is read: its parts, weights, stages, and the ids that the text encoder reads."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.errors import UsageError
from sdscratch.texts import UTF_16, NotText, decode, without_end

if TYPE_CHECKING:
    from sdscratch.text.chunks import Chunk, Embedding
    from sdscratch.text.reading import Syntax
    from sdscratch.text.tokenizer import Tokenizer, Tokens

__all__ = ["tokens"]

MOST_STEPS = 10_000


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
    prompt_syntax: Annotated[
        str,
        typer.Option(
            "--prompt-syntax",
            help="Syntax that the prompt is written in: a1111, comfyui, compel, kohya or sdcpp; in plain "
            "nothing is syntax, and what is too long is cut.",
        ),
    ] = "a1111",
    embedding: Annotated[
        list[str] | None,
        typer.Option("--embedding", metavar="FILE", help="Embedding that the prompt may name; repeatable."),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            "--steps",
            min=1,
            max=MOST_STEPS,
            help="Number of steps that [a:b:0.5] and [a|b] are reckoned with (samplers of second order count "
            "twice).",
        ),
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each prompt.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say where a tokenizer was found, and show tracebacks.")
    ] = False,
) -> None:
    """Show how PROMPT is read: weights, stages, and the chunks of tokens.

    Examples:

      sdscratch tokens "a (dog:1.3) wearing [sunglasses:a hat:0.5]"

      sdscratch tokens "an astronaut" -m v1-5.safetensors --prompt-syntax plain

      sdscratch tokens - --json < prompts.txt
    """
    if verbose:
        logging.getLogger("sdscratch").setLevel(logging.INFO)
    show = _shower(prompt_syntax, steps, embedding or [], as_json)
    chosen = open_tokenizer(model, tokenizer)
    for text in read_lines() if prompt == "-" else [prompt]:
        show(text, chosen)


def _shower(
    syntax: str, steps: int, embeddings: Sequence[str], as_json: bool
) -> Callable[[str, Tokenizer], None]:
    """What prints a prompt, as it was asked for."""
    from sdscratch.cli import tokens_shown as shown
    from sdscratch.text.cutting import cut_prompt
    from sdscratch.text.reading import find_syntax

    row = find_syntax(syntax)
    if row.name == "plain":
        plain = show_json if as_json else shown.plain_table if sys.stdout.isatty() else shown.plain_lines
        return lambda text, tokenizer: plain(cut_prompt(tokenizer, text))
    found = _embeddings(embeddings)
    if as_json:
        return lambda text, tokenizer: show_reading(text, tokenizer, row, steps, found)
    show = shown.table if sys.stdout.isatty() else shown.lines
    return lambda text, tokenizer: show(text, tokenizer, row, steps, found)


def _embeddings(names: Sequence[str]) -> list[Embedding]:
    """Names and numbers of vectors; no vector is read, and whether they fit a model is not asked.

    Raises:
        CheckpointError: missing, unreadable, or no embedding.
    """
    if not names:
        return []
    from sdscratch.addons.embedding import read_embedding
    from sdscratch.checkpoints.places import find_embedding

    return [read_embedding(find_embedding(name)) for name in names]


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
    """For programs, of syntax plain: a line a prompt, ids with start and end, unpadded."""
    _print({"ids": tokens.ids, "pieces": tokens.pieces, "truncated": tokens.truncated})


def show_reading(
    text: str, tokenizer: Tokenizer, syntax: Syntax, steps: int, embeddings: Sequence[Embedding]
) -> None:
    """For programs, of any other syntax. The chunks are of the prompt before editing and AND."""
    from sdscratch.text.reading import chunks_of, parts_of, stages_of

    _print(
        {
            "parts": [[span.text, _number(span.weight)] for span in syntax.spans(text)],
            "schedule": [[stage.end, stage.text] for stage in stages_of(text, syntax, steps)],
            "and": [[part.text, _number(part.weight)] for part in parts_of(text, syntax)],
            "chunks": [_chunk(chunk) for chunk in chunks_of(text, syntax, tokenizer, embeddings)],
        }
    )


def _chunk(chunk: Chunk) -> dict[str, Any]:
    return {
        "ids": chunk.ids,
        "weights": [_number(weight) for weight in chunk.weights],
        "vectors": [
            {"at": place.at, "name": place.name, "count": place.count}
            | ({"first": place.first} if place.first else {})
            for place in chunk.vectors
        ],
    }


def _number(value: float) -> float | str:
    """A number that JSON can write; ComfyUI takes "nan" and "inf" for weights."""
    return value if math.isfinite(value) else str(value)


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record, allow_nan=False), flush=True)  # ASCII: printed whatever the locale
