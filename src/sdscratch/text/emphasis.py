"""What weights do to a text encoder's output: each tool's own arithmetic.

No paper: the reference is each tool's behaviour. In all of them z is [n, t, d], of n chunks, and a weight
belongs to a token's place in its chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdscratch.text.chunks import Chunk, compel_chunk, empty_chunk
from sdscratch.text.prompt import Blend, Span
from sdscratch.text.reading import PlannedPart, PlannedStage
from sdscratch.text.tokenizer import Tokenizer

__all__ = [
    "A1111_MODES",
    "COMPEL_MODES",
    "EMPHASES",
    "KOHYA_MODES",
    "Encode",
    "encode_a1111",
    "encode_comfyui",
    "encode_compel",
    "encode_kohya",
    "encode_part",
    "encode_sdcpp",
    "from_ids",
    "insert_vectors",
]

Encode = Callable[[Sequence[Chunk]], Tensor]
"""Chunks to [n, length, d]: ids, vectors in some places, and (compel alone) masked places."""

# `none` goes with prompts in which nothing was read as a weight (`plan_prompt(literal=True)`).
A1111_MODES = ("original", "no-norm", "ignore", "none")
KOHYA_MODES = ("original", "abs", "none")
COMPEL_MODES = ("mask", "remove")
LEAST = 1e-5  # compel's least weight: below it, the tangent is too large


def from_ids(encode: Callable[[Tensor], Tensor], device: torch.device | None = None) -> Encode:
    """An encoder of chunks from one of [n, length] ids; for prompts without embeddings."""
    return lambda chunks: encode(torch.tensor([chunk.ids for chunk in chunks], device=device))


def insert_vectors(embedded: Tensor, chunks: Sequence[Chunk], vectors: Mapping[str, Tensor]) -> Tensor:
    """The token embeddings [n, length, d] of chunks with the vectors of textual inversions in their places.

    `vectors`: [count, d] by the name in `Vectors`. To be called before positions are added (Gal et al. 2022).
    """
    if not any(chunk.vectors for chunk in chunks):
        return embedded
    embedded = embedded.clone()
    for row, chunk in zip(embedded, chunks, strict=True):
        for place in chunk.vectors:
            own = vectors[place.name][place.first : place.first + place.count]
            row[place.at : place.at + place.count] = own
    return embedded


def encode_a1111(
    texts: Sequence[Sequence[Chunk]], encode: Encode, empty: Chunk, mode: str = "original"
) -> list[Tensor]:
    """A1111's emphasis, for all texts of one call: the stages of one prompt. Each gives [n·length, d].

    `original`: y = w·z, then y·mean(z)/mean(y), the means over the k-th chunks of all texts at once. So the
    stages of an edited prompt change each other; shorter texts are filled up with empty chunks, which take
    part and stay. `no-norm` leaves the means out; `ignore` and `none` the weights too.
    """
    count = max(len(chunks) for chunks in texts)
    columns = []
    for index in range(count):
        chunks = [text[index] if index < len(text) else empty for text in texts]
        columns.append(_emphasized(encode(chunks), chunks, mode))
    return list(torch.cat(columns, dim=1))


def _emphasized(z: Tensor, chunks: Sequence[Chunk], mode: str) -> Tensor:
    if mode not in A1111_MODES:
        raise ValueError(f"{mode!r} is no emphasis; there are {', '.join(A1111_MODES)}")
    if mode in ("ignore", "none"):
        return z
    if all(weight == 1.0 for chunk in chunks for weight in chunk.weights):
        return z  # as it would come out, but where the mean is 0
    weighted = z * _weights(chunks, z)
    return weighted if mode == "no-norm" else weighted * (z.mean() / weighted.mean())


def encode_sdcpp(chunks: Sequence[Chunk], encode: Encode) -> Tensor:
    """stable-diffusion.cpp's emphasis: A1111's, with the mean of each chunk by itself. [n·length, d]."""
    rows = []
    for z, chunk in zip(encode(chunks), chunks, strict=True):
        weighs = any(weight != 1.0 for weight in chunk.weights)
        rows.append(_emphasized(z[None], [chunk], "original" if weighs else "ignore")[0])
    return torch.cat(rows)


def encode_comfyui(chunks: Sequence[Chunk], encode: Encode, empty: Chunk) -> Tensor:
    """ComfyUI's: from the empty prompt's e through the prompt's z at the same place: e + w·(z - e).

    Where all weights are 1, z as it is. [n·length, d].
    """
    if all(weight == 1.0 for chunk in chunks for weight in chunk.weights):
        return encode(chunks).flatten(0, 1)
    encoded = encode([*chunks, empty])
    z, nothing = encoded[:-1], encoded[-1]
    return (nothing + _weights(chunks, z) * (z - nothing)).flatten(0, 1)


def encode_kohya(
    chunks: Sequence[Chunk], encode: Encode, mode: str = "original", boseos_middle: bool = True
) -> Tensor:
    """kohya's: as A1111's, with the mean (`abs`: of absolute values) over the whole prompt. [n·length, d].

    Without `boseos_middle` the starts and ends between chunks are dropped before anything is weighed:
    [n·(length - 2) + 2, d].
    """
    if mode not in KOHYA_MODES:
        raise ValueError(f"{mode!r} is no normalisation; there are {', '.join(KOHYA_MODES)}")
    z = encode(chunks)
    weights = _weights(chunks, z).expand_as(z)
    if not boseos_middle:
        z, weights = _without_middle(z), _without_middle(weights)
    weighted = z * weights
    if mode == "none":
        scaled = weighted
    elif mode == "abs":
        scaled = weighted * (z.abs().mean() / weighted.abs().mean())
    else:
        scaled = weighted * (z.mean() / weighted.mean())
    return scaled.flatten(0, -2)


def _without_middle(z: Tensor) -> Tensor:
    inner = z[:, 1:-1].flatten(0, 1)
    return torch.cat([z[0, :1], inner, z[-1, -1:]])


def encode_compel(
    blends: Sequence[Blend], tokenizer: Tokenizer, encode: Encode, mode: str = "mask"
) -> Tensor:
    """compel's contexts of a conjunction, one after the other: [n·length, d].

    A prompt is interpolated from the empty one, like ComfyUI's. A span of weight w < 1 besides pulls
    towards the prompt without it, by tan((1 - w)·π/2) to 1; so a low weight acts twice. A blend is the sum
    of its prompts by their shares, and a weight of `.and()` interpolates from the empty prompt once more.

    Args:
        mode: how a prompt is without a span: `mask` hides it from attention (`Chunk.masked`), `remove` leaves
            it out.
    """
    if mode not in COMPEL_MODES:
        raise ValueError(f"{mode!r} is no way to weigh down; there are {', '.join(COMPEL_MODES)}")
    empty = encode([compel_chunk((), tokenizer)])[0]
    rows = []
    for blend in blends:
        each = [_downweighted(spans, tokenizer, encode, empty, mode) for spans in blend.prompts]
        z = _sum(each, blend.shares, blend.normalized)
        rows.append(z if blend.weight == 1.0 else empty + (z - empty) * blend.weight)
    return torch.cat(rows)


def _downweighted(
    spans: Sequence[Span], tokenizer: Tokenizer, encode: Encode, empty: Tensor, mode: str
) -> Tensor:
    """One prompt with all that its weights do: [length, d]."""
    whole = compel_chunk(spans, tokenizer)
    each, factors = [_interpolated(whole, encode, empty)], [1.0]
    place = 1
    for index, span in enumerate(spans):
        if place >= tokenizer.length - 1:
            break
        after = place + len(tokenizer.ids(span.text))
        if span.weight < 1.0:
            if mode == "mask":  # a span that is cut takes the end with it: so does the tool
                without = replace(whole, masked=tuple(range(place, min(after, tokenizer.length))))
            else:
                without = compel_chunk([*spans[:index], *spans[index + 1 :]], tokenizer)
            each.append(_interpolated(without, encode, empty))
            factors.append(math.tan((1.0 - max(span.weight, LEAST)) * math.pi / 2))
        place = after
    return _sum(each, factors, normalized=True)


def _interpolated(chunk: Chunk, encode: Encode, empty: Tensor) -> Tensor:
    z = encode([chunk])
    weights = _weights([chunk], z)
    return torch.where(weights == 1.0, z, empty + (z - empty) * weights)[0]


def _sum(each: Sequence[Tensor], shares: Sequence[float], normalized: bool) -> Tensor:
    factors = torch.tensor(shares, dtype=each[0].dtype, device=each[0].device)
    if normalized:
        factors = factors / factors.sum()
    return (torch.stack(list(each)) * factors[:, None, None]).sum(0)


def _weights(chunks: Sequence[Chunk], z: Tensor) -> Tensor:
    """[n, length, 1], of the device and type of z."""
    return torch.tensor([chunk.weights for chunk in chunks], dtype=z.dtype, device=z.device)[:, :, None]


EMPHASES = (
    *A1111_MODES,
    "comfyui",
    "sdcpp",
    *(f"kohya{suffix}" for suffix in ("", "-abs", "-none")),
    *("compel", "compel-remove"),
)


def encode_part(
    part: PlannedPart, tokenizer: Tokenizer, encode: Encode, emphasis: str = "original"
) -> list[Tensor]:
    """The contexts of a part, [n·length, d] a stage, under one of `EMPHASES`.

    A syntax's own is `reading.SYNTAXES[name].emphasis`; under A1111's all stages are encoded in one call,
    and are of one length. compel's needs a prompt that its syntax read.
    """
    empty = empty_chunk(tokenizer)
    if emphasis in A1111_MODES:
        return encode_a1111([stage.chunks for stage in part.stages], encode, empty, emphasis)
    return [_encode_stage(stage, tokenizer, encode, empty, emphasis) for stage in part.stages]


def _encode_stage(
    stage: PlannedStage, tokenizer: Tokenizer, encode: Encode, empty: Chunk, emphasis: str
) -> Tensor:
    tool, _, mode = emphasis.partition("-")
    if tool == "comfyui":
        return encode_comfyui(stage.chunks, encode, empty)
    if tool == "sdcpp":
        return encode_sdcpp(stage.chunks, encode)
    if tool == "kohya":
        return encode_kohya(stage.chunks, encode, mode or "original")
    if tool == "compel" and stage.blends:
        return encode_compel(stage.blends, tokenizer, encode, mode or "mask")
    raise ValueError(f"{emphasis!r} is no emphasis of this prompt; there are {', '.join(EMPHASES)}")
