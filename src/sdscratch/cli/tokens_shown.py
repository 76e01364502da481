"""What `tokens` shows people: tables on a terminal, lines in pipes and logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sdscratch.show import printable
from sdscratch.text.chunks import Chunk, Embedding
from sdscratch.text.cutting import cut_notice
from sdscratch.text.prompt import take_tags
from sdscratch.text.reading import PlannedPart, Syntax, plan_prompt
from sdscratch.text.tokenizer import Tokenizer, Tokens

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["lines", "plain_lines", "plain_table", "table"]

MOST_STAGES = 8  # of an alternation the first ones tell all


def plain_lines(tokens: Tokens) -> None:
    """A line a token, what was cut, and an empty line."""
    shown = [f"{place:>4}  {id:>6}  {piece}" for place, id, piece in rows(tokens)]
    print("\n".join([*shown, *notices(tokens)]), end="\n\n", flush=True)


def plain_table(tokens: Tokens) -> None:
    """The same in a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("#", justify="right", style="dim")
    shown.add_column("id", justify="right", style="cyan")
    shown.add_column("piece", overflow="fold")
    for place, id, piece in rows(tokens):
        shown.add_row(str(place), str(id), Text(piece))  # Text: square brackets in a piece are no markup
    console = Console(highlight=False)
    console.print(shown)
    for notice in notices(tokens):
        console.print(Text(notice, style="yellow"), soft_wrap=True)


def rows(tokens: Tokens) -> Iterator[tuple[int, int, str]]:
    """Each token's place, counted from 1, its id and its piece."""
    for place, (id, piece) in enumerate(zip(tokens.ids, tokens.pieces, strict=True), 1):
        yield place, id, printable(piece)


def notices(tokens: Tokens) -> list[str]:
    """What there is to say below the tokens."""
    return [cut_notice(tokens)] if tokens.truncated else []


def lines(
    text: str, tokenizer: Tokenizer, syntax: Syntax, steps: int, embeddings: Sequence[Embedding]
) -> None:
    """Headings of parts, stages and chunks, a line a token with its weight, and an empty line."""
    plan, tags = _read(text, tokenizer, syntax, steps, embeddings)
    print(
        "\n".join([*(tag_notice(tag) for tag in tags), *_lines(plan, tokenizer, steps)]),
        end="\n\n",
        flush=True,
    )


def _lines(plan: Sequence[PlannedPart], tokenizer: Tokenizer, steps: int) -> Iterator[str]:
    for _, content in _story(plan, steps):
        if isinstance(content, str):
            yield content
            continue
        for place, id, weight, piece in chunk_rows(content, tokenizer):
            yield f"{place:>4}  {id:>6}  {weight:>6.4g}  {piece}"


def table(
    text: str, tokenizer: Tokenizer, syntax: Syntax, steps: int, embeddings: Sequence[Embedding]
) -> None:
    """The same in colours: the brighter a word, the more it weighs; in red if that is less than nothing."""
    from rich.console import Console

    plan, tags = _read(text, tokenizer, syntax, steps, embeddings)
    console = Console(highlight=False)
    for tag in tags:
        console.print(tag_notice(tag), style="yellow", markup=False, soft_wrap=True)
    for kind, content in _story(plan, steps):
        if isinstance(content, str):
            console.print(content, style=HEADINGS[kind], markup=False, soft_wrap=True)
        else:
            _chunk_table(content, tokenizer, console)


HEADINGS = {"part": "bold", "stage": "magenta", "break": "yellow", "chunk": "dim"}


def _chunk_table(chunk: Chunk, tokenizer: Tokenizer, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    words = Text()
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name, style in (("#", "dim"), ("id", "cyan"), ("weight", None)):
        shown.add_column(name, justify="right", style=style)
    shown.add_column("piece", overflow="fold")
    for place, id, weight, piece in chunk_rows(chunk, tokenizer):
        shade = _shade(weight)
        shown.add_row(str(place), str(id), Text(f"{weight:.4g}", shade), Text(piece, shade))
        if 1 < place <= chunk.used + 1:
            words.append(piece.replace("</w>", " "), shade)
    if words:
        console.print(words)
    console.print(shown)


def _shade(weight: float) -> str:
    """Grey for 0, white for 2 and more; red below."""
    if weight != weight:
        return "red"
    level = 80 + int(175 * min(abs(weight), 2.0) / 2.0)
    return f"rgb({level},{level // 4},{level // 4})" if weight < 0 else f"rgb({level},{level},{level})"


def _read(
    text: str, tokenizer: Tokenizer, syntax: Syntax, steps: int, embeddings: Sequence[Embedding]
) -> tuple[tuple[PlannedPart, ...], list[str]]:
    text, tags = take_tags(text)
    plan = plan_prompt(text, tokenizer, syntax.name, steps=steps, embeddings=embeddings)
    return plan, [tag.text for tag in tags]


def tag_notice(tag: str) -> str:
    """That a tag is no text."""
    return f"{printable(tag)} asks for an add-on and is taken out of the prompt"


def _story(plan: Sequence[PlannedPart], steps: int) -> Iterator[tuple[str, str | Chunk]]:
    """Headings by kind, and chunks, in the order in which they are shown."""
    for number, part in enumerate(plan, 1):
        if len(plan) > 1 or part.weight != 1.0:
            yield "part", f"part {number} of {len(plan)}, weight {part.weight:g}: {printable(part.text)}"
        begin = 0
        for stage in part.stages[:MOST_STAGES]:
            if len(part.stages) > 1:
                yield "stage", f"evaluations {begin} to {stage.end}: {printable(stage.text)}"
            begin = stage.end + 1
            yield from _chunks_told(stage.chunks)
        if len(part.stages) > MOST_STAGES:
            yield "stage", f"and so on: {len(part.stages)} stages in {steps} evaluations"


def _chunks_told(chunks: Sequence[Chunk]) -> Iterator[tuple[str, str | Chunk]]:
    for number, chunk in enumerate(chunks, 1):
        if len(chunks) > 1:
            room = len(chunk.ids) - 2
            yield (
                "chunk",
                f"chunk {number} of {len(chunks)}: {chunk.used} of {room} tokens" + ", BREAK" * chunk.broken,
            )
        yield "rows", chunk


def chunk_rows(chunk: Chunk, tokenizer: Tokenizer) -> Iterator[tuple[int, int, float, str]]:
    """Each token's place, from 1, id, weight and piece, up to the end token; vectors by their name."""
    names = {
        place.at + index: f"{place.name}[{place.first + index}]"
        for place in chunk.vectors
        for index in range(place.count)
    }
    for index in range(chunk.used + 2):
        id = chunk.ids[index]
        yield index + 1, id, chunk.weights[index], printable(names.get(index) or tokenizer.piece(id))
