"""The prompt's tokens, and what the text encoder makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdscratch.explain.capture import Run
from sdscratch.explain.charts import number
from sdscratch.explain.inline import grey, one_sided, two_sided
from sdscratch.explain.reading import Token, tokens_of
from sdscratch.generation.conditioning import ToldPart
from sdscratch.text.chunks import Chunk
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.vocabulary import WORD_END

__all__ = ["text_view", "tokens_view"]

MOST_STAGES = 4  # of an edited prompt that are shown
TOP_LABELS = 26  # tokens up to which a square has labels above, too


def tokens_view(run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
    """Pieces, ids, weights, chunks and padding of the prompt and the negative prompt."""
    return {
        "prompt": [part_view(part, tokenizer) for part in run.prompt],
        "negative": [part_view(part, tokenizer) for part in run.negative],
        "vocabulary": f"{tokenizer.size:,}",
        "length": tokenizer.length,
    }


def part_view(part: ToldPart, tokenizer: Tokenizer) -> dict[str, Any]:
    """One of the texts that AND joins."""
    stages = part.planned.stages
    return {
        "text": part.planned.text,
        "weight": part.weight,
        "more": max(0, len(stages) - MOST_STAGES),
        "stages": [
            {
                "end": stage.end,
                "text": stage.text,
                "chunks": [chunk_view(chunk, tokenizer) for chunk in stage.chunks],
            }
            for stage in stages[:MOST_STAGES]
        ],
    }


def chunk_view(chunk: Chunk, tokenizer: Tokenizer) -> dict[str, Any]:
    """A row of tokens, its padding counted."""
    tokens = tokens_of(chunk, tokenizer)
    shown = [token for token in tokens if token.kind != "padding"]
    return {
        "tokens": [
            {
                "id": token.id,
                "piece": label(token),
                "ends": token.piece.endswith(WORD_END),
                "kind": token.kind,
                "weight": number(token.weight, 4) if token.weight != 1.0 else "",
                "strength": min(max(token.weight, 0.0), 2.0) / 2.0,
            }
            for token in shown
        ],
        "padding": len(tokens) - len(shown),
        "pad": tokenizer.pad,
        "used": chunk.used,
        "room": tokenizer.length - 2,
        "broken": chunk.broken,
    }


def label(token: Token) -> str:
    """A token as it is shown."""
    special = {"start": "start", "end": "end", "padding": "pad"}
    return special.get(token.kind) or token.piece.removesuffix(WORD_END)


def text_view(run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
    """The context as a heat map, how alike its rows are, and every layer's and head's attention."""
    first = run.prompt[0]
    chunks = first.planned.stages[0].chunks
    context = first.conditionings[0].context[0].float().cpu()
    length = context.shape[0] // max(len(chunks), 1)
    shown = [(index, token) for index, chunk in enumerate(chunks) for token in tokens_of(chunk, tokenizer)]
    shown = [(index, token) for index, token in shown if token.kind != "padding"]
    places = [index * length + token.position for index, token in shown]
    rows = context[[place for place in places if place < len(context)]]
    labels = [label(token) for _, token in shown][: len(rows)]
    most = float(rows.abs().flatten().quantile(0.995)) if rows.numel() < 2**24 else float(rows.abs().max())
    alike = cosines(rows)
    return {
        "labels": labels,
        "above": len(labels) <= TOP_LABELS,
        "width": context.shape[1],
        "count": context.shape[0],
        "context": grey(two_sided(rows, most)),
        "most": number(most),
        "rms": number(float(rows.square().mean().sqrt())),
        "alike": grey(two_sided(alike, 1.0)),
        "nearest": nearest(alike, labels),
        "attention": attention_view(run, chunks, tokenizer),
    }


def cosines(rows: Tensor) -> Tensor:
    """The cosine of the angle between every two rows: 1 for the same direction."""
    unit = torch.nn.functional.normalize(rows, dim=1)
    return unit @ unit.T


def nearest(alike: Tensor, labels: Sequence[str]) -> dict[str, str] | None:
    """The two different words whose rows are most alike."""
    inner = [index for index, name in enumerate(labels) if name not in ("start", "end")]
    pairs = [(float(alike[a, b]), labels[a], labels[b]) for a in inner for b in inner if a < b]
    if not pairs:
        return None
    value, one, other = max(pairs)
    return {"one": one, "other": other, "value": number(value, 2)}


def attention_view(run: Run, chunks: Sequence[Chunk], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Of the first chunk: a picture for every layer and head; None where attention was not to be seen."""
    chunk = chunks[0]
    layers = run.text.attentions.get(tuple(chunk.ids), [])
    if not layers:
        return None
    seen = min(chunk.used + 2, len(chunk.ids))
    return {
        "labels": [label(token) for token in tokens_of(chunk, tokenizer)[:seen]],
        "heads": [[grey(one_sided(head[:seen, :seen], 1.0)) for head in layer] for layer in layers],
        "above": seen <= TOP_LABELS,
    }
