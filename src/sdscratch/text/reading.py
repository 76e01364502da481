"""A prompt read by the name of a syntax: its parts, its stages, and the chunks of each. No torch.

    [part] = plan_prompt("a (red:1.2) [cat:dog:0.5]", tokenizer, steps=20)
    [(stage.end, stage.chunks) for stage in part.stages]

`emphasis.encode_part` makes a part's contexts of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdscratch.errors import UsageError
from sdscratch.text import chunks
from sdscratch.text.chunks import Chunk, Chunker, Embedding
from sdscratch.text.prompt import Blend, Part, Prompt, Span, Stage, take_tags
from sdscratch.text.syntax import a1111, comfyui, compel, editing, kohya, plain, sdcpp
from sdscratch.text.tokenizer import Tokenizer

__all__ = [
    "SYNTAXES",
    "PlannedPart",
    "PlannedStage",
    "Syntax",
    "chunks_of",
    "find_syntax",
    "parts_of",
    "plan_prompt",
    "read_prompt",
    "stages_of",
]


@dataclass(frozen=True)
class Syntax:
    """One dialect: a row of `SYNTAXES`."""

    name: str
    spans: Callable[[str], tuple[Span, ...]]
    chunk: Chunker
    emphasis: str  # what its tool does with weights by default: a row of `emphasis.EMPHASES`
    parts: Callable[[str], tuple[Part, ...]] | None = None  # what AND or `.and()` joins
    edits: bool = False  # whether `[a:b:8]` and `[a|b]` edit


def _compel_spans(text: str) -> tuple[Span, ...]:
    blends = compel.conjunction(text).blends
    return tuple(span for blend in blends for prompt in blend.prompts for span in prompt)


def _compel_parts(text: str) -> tuple[Part, ...]:
    return tuple(Part(blend.text, blend.weight) for blend in compel.conjunction(text).blends)


SYNTAXES = {
    row.name: row
    for row in (
        Syntax("a1111", a1111.spans, chunks.chunk_a1111, "original", a1111.parts, edits=True),
        Syntax("comfyui", comfyui.spans, chunks.chunk_comfyui, "comfyui"),
        Syntax("compel", _compel_spans, chunks.chunk_compel, "compel", _compel_parts),
        Syntax("kohya", kohya.spans, chunks.chunk_kohya, "kohya"),
        Syntax("sdcpp", sdcpp.spans, chunks.chunk_sdcpp, "sdcpp"),
        Syntax("plain", plain.spans, chunks.chunk_plain, "ignore"),
    )
}


@dataclass(frozen=True)
class PlannedStage:
    """What is read up to an evaluation of the network (`prompt.selected` says which one is at which)."""

    end: int
    text: str
    chunks: tuple[Chunk, ...]
    blends: tuple[Blend, ...] = ()  # compel's, in whose place the chunks only show what is read


@dataclass(frozen=True)
class PlannedPart:
    """A text that AND joins, through all its stages: they are to be encoded in one call."""

    text: str
    weight: float
    stages: tuple[PlannedStage, ...]


def find_syntax(name: str) -> Syntax:
    """The row of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SYNTAXES:
        raise UsageError(f"there is no prompt syntax {name!r}; take one of {', '.join(SYNTAXES)}")
    return SYNTAXES[name]


def read_prompt(text: str, syntax: str = "a1111") -> Prompt:
    """What a prompt means before it is known how many steps there are. Takes any text.

    Raises:
        UsageError: an unknown syntax.
    """
    row = find_syntax(syntax)
    text, tags = take_tags(text)
    read = compel.conjunction(text) if syntax == "compel" else compel.Conjunction(())
    return Prompt(text, syntax, row.spans(text), parts_of(text, row), (*tags, *read.tags), blends=read.blends)


def plan_prompt(
    text: str,
    tokenizer: Tokenizer,
    syntax: str = "a1111",
    *,
    steps: int,
    embeddings: Sequence[Embedding] = (),
    first_pass: int | None = None,
    old_timeline: bool = False,
    negative: bool = False,
    literal: bool = False,
) -> tuple[PlannedPart, ...]:
    """Parts, their stages, and the chunks of each, for a prompt without add-on tags.

    Args:
        steps: how often the network will be asked: twice the steps for a sampler of second order.
        embeddings: those that the prompt may name.
        first_pass, old_timeline: as `editing.stages` has them.
        negative: AND and the number after the last colon mean nothing.
        literal: no bracket and no BREAK means anything (A1111's emphasis `none`); AND and editing do.

    Raises:
        UsageError: no valid text, an unknown syntax, or an embedding that fits no chunk.
    """
    row = find_syntax(syntax)

    def planned(stage: Stage) -> PlannedStage:
        read = chunks_of(stage.text, row, tokenizer, embeddings, literal)
        blends = compel.conjunction(stage.text).blends if syntax == "compel" else ()
        return PlannedStage(stage.end, stage.text, read, blends)

    planned_parts = []
    whole = negative or syntax == "compel"  # whose contexts are joined, not its pulls
    for part in (Part(text),) if whole else parts_of(text, row):
        stages = stages_of(part.text, row, steps, first_pass, old_timeline)
        planned_parts.append(PlannedPart(part.text, part.weight, tuple(map(planned, stages))))
    return tuple(planned_parts)


def parts_of(text: str, row: Syntax) -> tuple[Part, ...]:
    """What AND joins; one part where there is none, or where the syntax has no AND."""
    return (Part(text),) if row.parts is None else row.parts(text)


def chunks_of(
    text: str, row: Syntax, tokenizer: Tokenizer, embeddings: Sequence[Embedding], literal: bool = False
) -> tuple[Chunk, ...]:
    """The chunks of a text, editing and AND not looked at; of compel's prompts one after the other."""
    if row.name == "compel" and not literal:
        prompts = [prompt for blend in compel.conjunction(text).blends for prompt in blend.prompts]
    else:
        prompts = [a1111.literal_spans(text) if literal else row.spans(text)]
    return tuple(chunk for spans in prompts for chunk in row.chunk(spans, tokenizer, embeddings))


def stages_of(
    text: str, row: Syntax, steps: int, first_pass: int | None = None, old_timeline: bool = False
) -> tuple[Stage, ...]:
    """The stages of a text; a single one where the syntax edits nothing."""
    if not row.edits:
        return (Stage(steps, text),)
    return editing.stages(text, steps, first_pass=first_pass, old_timeline=old_timeline)
