"""What weights do, as the tools themselves computed it from a toy text encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sdscratch.text import emphasis
from sdscratch.text.chunks import Chunk, Vectors, empty_chunk
from sdscratch.text.emphasis import encode_a1111, encode_kohya, encode_part, from_ids, insert_vectors
from sdscratch.text.reading import SYNTAXES, plan_prompt
from support.shared import shared_path
from support.tokenizers import clip_tokenizer

MODES = {"Original": "original", "No norm": "no-norm", "Ignore": "ignore", "None": "none"}
PLACES = torch.arange(77, dtype=torch.float64)


def toy(ids: Tensor) -> Tensor:
    """[n, 77] ids to [n, 77, 16]: the README of the data has the formula."""
    channels = torch.arange(16, dtype=torch.float64)
    return torch.sin(0.01 * ids.double()[:, :, None] + 0.3 * PLACES[:, None] + 0.1 * channels) + 0.25


def toy_with_attention(chunks: Sequence[Chunk]) -> Tensor:
    """The same, with something of all the words before that are not masked."""
    z = encode(chunks)
    for row, chunk in zip(z, chunks, strict=True):
        seen = torch.tensor([place not in chunk.masked for place in range(77)], dtype=torch.float64)
        words = torch.cos(0.02 * torch.tensor(chunk.ids, dtype=torch.float64) + 0.05 * PLACES) * seen
        row += 0.5 * (words.cumsum(0) / seen.cumsum(0).clamp(min=1.0))[:, None]
    return z.float()


encode = from_ids(toy)


def cases(tool: str) -> list[Any]:
    record: dict[str, list[Any]] = json.loads(shared_path("golden", "conditioning.json").read_text("utf-8"))
    return record[tool]


@pytest.fixture(scope="module")
def arrays() -> Any:
    with np.load(shared_path("golden", "conditioning.npz")) as file:
        return dict(file)


def assert_is(found: Tensor, wanted: Any, what: object) -> None:
    wanted = torch.from_numpy(wanted).double()
    assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6, msg=lambda text: f"{what}: {text}")


@pytest.mark.parametrize("mode", MODES)
def test_a1111s_emphasis(mode: str, arrays: Any) -> None:
    compared = 0
    for index, row in enumerate(cases("a1111")):
        if mode not in row:
            continue
        literal = mode == "None"
        [part] = plan_prompt(row["prompt"], clip_tokenizer(), steps=20, negative=True, literal=literal)
        [context] = encode_part(part, clip_tokenizer(), encode, MODES[mode])
        assert_is(context, arrays[f"a1111/{index}/{mode}"], row["prompt"])
        compared += 1
    assert compared >= 7


def test_texts_of_one_call_share_a1111s_mean(arrays: Any) -> None:
    syntax, tokenizer = SYNTAXES["a1111"], clip_tokenizer()
    for index, row in enumerate(cases("a1111_group")):
        texts = [syntax.chunk(syntax.spans(text), tokenizer, ()) for text in row["texts"]]
        contexts = torch.stack(encode_a1111(texts, encode, empty_chunk(tokenizer)))
        assert_is(contexts, arrays[f"a1111_group/{index}"], row["texts"])
        alone = [encode_a1111([text], encode, empty_chunk(tokenizer))[0].sum().item() for text in texts]
        assert alone == pytest.approx(row["sums_alone"], rel=1e-6)


def test_the_stages_of_a_prompt_are_one_call() -> None:
    tokenizer = clip_tokenizer()
    [part] = plan_prompt("a ([cat:old dog BREAK x:0.5]:1.4)", tokenizer, steps=20)
    texts = [stage.chunks for stage in part.stages]
    assert [len(text) for text in texts] == [1, 1]  # a weighted BREAK is a word
    together = encode_a1111(texts, encode, empty_chunk(tokenizer))
    assert_close(encode_part(part, tokenizer, encode), together, rtol=0, atol=0)
    alone = encode_a1111(texts[:1], encode, empty_chunk(tokenizer))[0]
    assert (together[0] - alone).abs().max() > 1e-4


def test_comfyuis_emphasis(arrays: Any) -> None:
    for index, row in enumerate(cases("comfy")):
        [part] = plan_prompt(row["prompt"], clip_tokenizer(), "comfyui", steps=20)
        [context] = encode_part(part, clip_tokenizer(), encode, "comfyui")
        assert_is(context, arrays[f"comfy/{index}"], row["prompt"])


@pytest.mark.parametrize("mode", ["original", "abs", "none"])
def test_kohyas_emphasis(mode: str, arrays: Any) -> None:
    for index, row in enumerate(cases("kohya")):
        [part] = plan_prompt(row["prompt"], clip_tokenizer(), "kohya", steps=20)
        name = "kohya" if mode == "original" else f"kohya-{mode}"
        [context] = encode_part(part, clip_tokenizer(), encode, name)
        assert_is(context, arrays[f"kohya/{index}/{mode}"], row["prompt"])


def test_kohyas_emphasis_without_starts_and_ends_between_chunks(arrays: Any) -> None:
    for index, row in enumerate(cases("kohya")):
        [part] = plan_prompt(row["prompt"], clip_tokenizer(), "kohya", steps=20)
        context = encode_kohya(part.stages[0].chunks, encode, boseos_middle=False)
        assert len(context) == row["tokens_len"]
        assert_is(context, arrays[f"kohya/{index}/original/no_boseos"], row["prompt"])


@pytest.mark.parametrize(("mode", "name"), [("MASK", "compel"), ("REMOVE", "compel-remove")])
def test_compels_emphasis(mode: str, name: str, arrays: Any) -> None:
    for index, row in enumerate(cases("compel")):
        [part] = plan_prompt(row["prompt"], clip_tokenizer(), "compel", steps=20)
        [context] = encode_part(part, clip_tokenizer(), toy_with_attention, name)
        assert_is(context, arrays[f"compel/{index}/{mode}"], row["prompt"])


def test_stable_diffusion_cpp_has_a_mean_for_each_chunk() -> None:
    [part] = plan_prompt("plain BREAK (x:1.4) y", clip_tokenizer(), "sdcpp", steps=20)
    [context] = encode_part(part, clip_tokenizer(), encode, "sdcpp")
    plain, weighted = encode(part.stages[0].chunks)
    weights = torch.tensor(part.stages[0].chunks[1].weights, dtype=torch.float64)[:, None]
    assert_close(context[:77], plain, rtol=0, atol=0)
    assert_close(context[77:].mean(), weighted.mean())
    ratio = context[77:] / (weighted * weights)
    assert_close(ratio, torch.full_like(ratio, ratio.mean().item()))


def test_unweighted_prompts_are_what_the_text_encoder_says() -> None:
    text = "a photograph of an astronaut riding a horse"
    row = from_ids(toy)([empty_chunk(clip_tokenizer())])
    for name in emphasis.EMPHASES:
        syntax = next((known for known in SYNTAXES if name.startswith(known)), "a1111")
        [part] = plan_prompt(text, clip_tokenizer(), syntax, steps=20)
        [context] = encode_part(part, clip_tokenizer(), encode, name)
        assert_close(context, encode(part.stages[0].chunks)[0])
        assert context.shape == row[0].shape


def test_vectors_stand_in_the_places_of_their_embedding() -> None:
    embedded = torch.zeros(2, 8, 3)
    vectors = {"a": torch.ones(4, 3) * torch.arange(1.0, 5.0)[:, None]}
    chunks = [
        Chunk((0,) * 8, (1.0,) * 8, (Vectors(2, "a", 4),)),
        Chunk((0,) * 8, (1.0,) * 8, (Vectors(1, "a", 2, first=2), Vectors(5, "a", 1))),
    ]
    filled = insert_vectors(embedded, chunks, vectors)
    assert filled[:, :, 0].tolist() == [[0, 0, 1, 2, 3, 4, 0, 0], [0, 3, 4, 0, 0, 1, 0, 0]]
    assert not embedded.any()


@pytest.mark.parametrize("name", ["loud", "compel", "kohya-loud", "kohya-original-x"])
def test_an_unknown_emphasis_is_refused(name: str) -> None:
    [part] = plan_prompt("a (cat:2)", clip_tokenizer(), steps=20)
    with pytest.raises(ValueError, match=r"loud|compel|original-x"):
        encode_part(part, clip_tokenizer(), encode, name)
