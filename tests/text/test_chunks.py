"""Chunks, as each tool has them.

What A1111 and ComfyUI make of hundreds of prompts was written down from the tools themselves.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import Any, NamedTuple

import pytest

from sdscratch.errors import UsageError
from sdscratch.text.chunks import (
    Chunk,
    Vectors,
    chunk_a1111,
    chunk_comfyui,
    chunk_compel,
    chunk_kohya,
    chunk_plain,
    chunk_sdcpp,
    empty_chunk,
)
from sdscratch.text.cutting import encode_prompt
from sdscratch.text.prompt import Span
from sdscratch.text.syntax import a1111, comfyui
from sdscratch.text.tokenizer import Tokenizer
from support.shared import shared_path
from support.tokenizers import clip_tokenizer, tiny_tokenizer

# What the tools themselves made of prompts.


class Named(NamedTuple):
    name: str
    count: int


def golden(name: str) -> Any:
    return json.loads(shared_path("golden", name).read_text(encoding="utf-8"))


def embeddings(record: Any) -> list[Named]:
    return [Named(row["name"], row["vectors"]) for row in record["embeddings"]]


def unrolled(runs: list[list[Any]]) -> list[float]:
    return [float(value) for count, value in runs for _ in range(count)]


def test_chunks_are_a1111s() -> None:
    record, tokenizer = golden("prompts_a1111.json"), clip_tokenizer()
    named = embeddings(record)
    compared = 0
    for row in record["rows"]:
        if isinstance(row["attention"], dict):  # an error of the tool's
            continue
        spans = a1111.spans(row["prompt"])
        assert_a1111(chunk_a1111(spans, tokenizer, ()), row["chunks"], row["prompt"])
        with_embeddings = row.get("with_embeddings", row)
        assert_a1111(chunk_a1111(spans, tokenizer, named), with_embeddings["chunks"], row["prompt"])
        compared += 1
    for row in record["emphasis_none"]:
        chunks = chunk_a1111(a1111.literal_spans(row["prompt"]), tokenizer, ())
        assert_a1111(chunks, row["chunks"], row["prompt"])
    assert compared > 270
    assert sum("with_embeddings" in row for row in record["rows"]) > 10


def assert_a1111(chunks: list[Chunk], wanted: list[Any], prompt: str) -> None:
    assert [list(chunk.ids) for chunk in chunks] == [row["ids"] for row in wanted], prompt
    assert [list(chunk.weights) for chunk in chunks] == [unrolled(row["mult_rle"]) for row in wanted], prompt
    fixes = [[[v.at - 1, v.name, v.count] for v in chunk.vectors] for chunk in chunks]
    assert fixes == [row.get("fixes", []) for row in wanted], prompt


def test_a1111s_count_of_tokens_is_ours() -> None:
    """Whole chunks count as 75, whatever is in them, except the last one that no BREAK ends."""
    for row in golden("prompts_a1111.json")["rows"]:
        if "token_count" in row:
            chunks = chunk_a1111(a1111.spans(row["prompt"]), clip_tokenizer(), ())
            counts = [75 if chunk.broken or chunk is not chunks[-1] else chunk.used for chunk in chunks]
            assert sum(counts) == row["token_count"], row["prompt"]


def test_chunks_are_comfyuis() -> None:
    record, tokenizer = golden("prompts_comfy.json"), clip_tokenizer()
    named = embeddings(record)
    for row in record["rows"]:
        spans = comfyui.spans(row["prompt"])
        assert_comfyui(chunk_comfyui(spans, tokenizer, ()), row["chunks"], row["prompt"])
        wanted = row.get("chunks_with_embedding_dir", row["chunks"])
        assert_comfyui(chunk_comfyui(spans, tokenizer, named), wanted, row["prompt"])
    assert sum("chunks_with_embedding_dir" in row for row in record["rows"]) > 10


def assert_comfyui(chunks: list[Chunk], wanted: list[Any], prompt: str) -> None:
    assert [ids_or_vectors(chunk) for chunk in chunks] == [row["ids"] for row in wanted], prompt
    weights = [weight for chunk in chunks for weight in chunk.weights]
    expected = list(chain.from_iterable(unrolled(row["weight_rle"]) for row in wanted))
    assert list(map(repr, weights)) == list(map(repr, expected)), prompt  # repr: nan is nan


def ids_or_vectors(chunk: Chunk) -> list[Any]:
    ids: list[Any] = list(chunk.ids)
    for place in chunk.vectors:
        for index in range(place.count):
            ids[place.at + index] = [place.name, place.first + index]
    return ids


# What no tool was asked.


def short_tokenizer(length: int = 32) -> Tokenizer:
    return Tokenizer.from_merges(clip_tokenizer().vocabulary.merges, length)


def test_a_text_encoder_of_32_tokens_has_chunks_of_30() -> None:
    tokenizer = short_tokenizer()
    spans = a1111.spans("cat " * 31 + "BREAK dog")
    for chunker in (chunk_a1111, chunk_comfyui, chunk_kohya, chunk_sdcpp):
        chunks = chunker(spans, tokenizer, ())
        assert {len(chunk.ids) for chunk in chunks} == {len(chunk.weights) for chunk in chunks} == {32}
        assert chunks[0].ids == (tokenizer.start, *[2368] * 30, tokenizer.end)
    assert [chunk.used for chunk in chunk_a1111(spans, tokenizer, ())] == [30, 1, 1]
    assert [len(chunk.ids) for chunk in chunk_compel(spans, tokenizer, ())] == [32]


def test_a_short_chunk_is_broken_at_its_last_comma() -> None:
    tokenizer = short_tokenizer()
    spans = (Span("dog " * 20 + ", " + "cat " * 15),)
    assert [chunk.used for chunk in chunk_a1111(spans, tokenizer, ())] == [21, 15]
    assert [chunk.used for chunk in chunk_sdcpp(spans, tokenizer, ())] == [30, 6]


@pytest.mark.parametrize("chunker", [chunk_a1111, chunk_comfyui, chunk_compel, chunk_plain, chunk_sdcpp])
@pytest.mark.parametrize("words", [0, 1, 74, 75])
def test_a_plain_prompt_of_75_tokens_is_the_row_of_diffusers(chunker: Any, words: int) -> None:
    tokenizer = clip_tokenizer()
    text = "cat " * words
    [chunk] = chunker((Span(text),), tokenizer, ())
    assert list(chunk.ids) == encode_prompt(tokenizer, text)
    assert set(chunk.weights) == {1.0}


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    tokenizer = clip_tokenizer()
    for chunker in (chunk_a1111, chunk_comfyui, chunk_compel, chunk_kohya, chunk_sdcpp):
        assert [chunk.ids for chunk in chunker((), tokenizer, ())] == [empty_chunk(tokenizer).ids]


def test_the_longest_name_of_an_embedding_is_found() -> None:
    named = [Named("my", 1), Named("my-emb", 4), Named("my-", 2)]
    [chunk] = chunk_a1111((Span("a My-Emb my cat", 1.5),), clip_tokenizer(), named)
    assert chunk.vectors == (Vectors(2, "my-emb", 4), Vectors(6, "my", 1))
    assert chunk.ids[1:8] == (320, 0, 0, 0, 0, 0, 2368)
    assert chunk.weights[1:8] == (1.5,) * 7


def test_an_embedding_moves_whole_in_a1111_and_is_cut_in_comfyui() -> None:
    tokenizer, named = short_tokenizer(), [Named("zorbstyle", 10)]
    first, second = chunk_a1111((Span("cat " * 25 + "zorbstyle"),), tokenizer, named)
    assert (first.used, first.vectors, second.vectors) == (25, (), (Vectors(1, "zorbstyle", 10),))
    first, second = chunk_comfyui((Span("cat " * 25 + " embedding:zorbstyle"),), tokenizer, named)
    assert first.vectors == (Vectors(26, "zorbstyle", 5),)
    assert second.vectors == (Vectors(1, "zorbstyle", 5, first=5),)


def test_an_embedding_that_fits_no_chunk_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"the embedding zorbstyle has 31 vectors, and .* reads 30 at once"):
        chunk_a1111((Span("cat"),), short_tokenizer(), [Named("zorbstyle", 31)])


def test_an_unknown_embedding_of_comfyui_is_said(caplog: pytest.LogCaptureFixture) -> None:
    chunk_comfyui((Span("embedding:nosuch"),), clip_tokenizer(), [Named("zorbstyle", 1)])
    assert "there is no embedding 'nosuch'" in caplog.text


def test_a_text_encoder_without_room_for_a_word_is_refused() -> None:
    tokenizer = Tokenizer.from_merges(tiny_tokenizer().vocabulary.merges, 2)
    for chunker in (chunk_a1111, chunk_comfyui, chunk_compel, chunk_kohya, chunk_sdcpp):
        with pytest.raises(UsageError, match="no room for a word"):
            chunker((Span("cat"),), tokenizer, ())


def test_breaks_of_stable_diffusion_cpp_after_a_full_chunk_add_none() -> None:
    spans = (Span("cat " * 75), Span.chunk_break(), Span("dog"))
    assert [chunk.used for chunk in chunk_sdcpp(spans, clip_tokenizer(), ())] == [75, 1]
    assert [chunk.used for chunk in chunk_a1111(spans, clip_tokenizer(), ())] == [75, 1]
    spans = (Span("cat " * 75), Span.chunk_break(), Span.chunk_break(), Span("dog"))
    assert [chunk.used for chunk in chunk_sdcpp(spans, clip_tokenizer(), ())] == [75, 1]
    assert [chunk.used for chunk in chunk_a1111(spans, clip_tokenizer(), ())] == [75, 0, 1]
