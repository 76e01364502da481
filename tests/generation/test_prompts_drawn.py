"""What a prompt's syntax does to a picture: against prompts that must give the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdscratch.errors import CheckpointError, UsageError
from sdscratch.generation.conditioning import planned_evaluations
from sdscratch.generation.pipeline import Pipeline, load

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4, "seed": 3, "sampler": "euler"}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def drawn(pipeline: Pipeline, prompt: str, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(pipeline.txt2img(prompt, **SMALL | options)).astype(int)


def distance(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("syntax", ["a1111", "comfyui", "sdcpp", "kohya", "compel"])
@pytest.mark.parametrize("prompt", ["the red dog on the apple", "", "dog, cat"])
def test_a_plain_prompt_gives_the_very_picture_in_every_syntax(
    pipeline: Pipeline, syntax: str, prompt: str
) -> None:
    exact = drawn(pipeline, prompt, prompt_syntax="plain")
    assert distance(drawn(pipeline, prompt, prompt_syntax=syntax), exact) <= (1 if syntax == "compel" else 0)


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("(dog:1.0) cat", "dog cat"),
        ("[the red dog:cat:0] apple", "cat apple"),
        ("[dog:cat:1.0] apple", "dog apple"),
        ("[dog:cat:9", "[dog:cat:9"),
        ("dog AND dog :0", "dog"),
        (r"dog \(cat\)", None),
    ],
)
def test_prompts_that_mean_the_same_give_the_same_picture(
    pipeline: Pipeline, prompt: str, same: str | None
) -> None:
    other = drawn(pipeline, "dog (cat)" if same is None else same, prompt_syntax="a1111" if same else "plain")
    assert distance(drawn(pipeline, prompt), other) <= 1


@pytest.mark.parametrize(
    "prompt",
    [
        "(dog:1.6) cat",
        "[dog] cat",
        "[dog:cat:0.5]",
        "[dog|cat]",
        "dog AND cat",
        "dog BREAK cat",
        "dog cat:1.3",
    ],
)
def test_what_has_a_meaning_changes_the_picture(pipeline: Pipeline, prompt: str) -> None:
    plain = prompt.replace("(", "").replace(":1.6)", "").replace("[", "").replace("]", "")
    assert distance(drawn(pipeline, prompt), drawn(pipeline, plain, prompt_syntax="plain")) > 2


def test_editing_draws_the_first_text_one_evaluation_longer_than_it_says(pipeline: Pipeline) -> None:
    (part,) = pipeline.encode_prompts("[dog:cat:2]", evaluations=4)
    dog, cat = part.conditionings
    names = {id(dog): "dog", id(cat): "cat"}
    seen = [names[id(part.at(evaluation))] for evaluation in range(5)]
    assert seen == ["dog", "dog", "dog", "cat", "cat"]


@pytest.mark.parametrize(
    ("sampler", "evaluations"), [("euler", 7), ("heun", 14), ("dpm2_a", 14), ("dpm++2m", 7), ("ddim", 7)]
)
def test_samplers_of_second_order_count_twice(sampler: str, evaluations: int) -> None:
    assert planned_evaluations(sampler, 7) == evaluations


def test_an_edit_that_cannot_act_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match=r"'\[dog:cat:9\]' changes at 9, but there are 4 evaluations"):
        drawn(pipeline, "[dog:cat:9]")


def test_and_adds_what_each_prompt_pulls(pipeline: Pipeline) -> None:
    both = drawn(pipeline, "dog :0.5 AND dog :0.5", cfg_scale=5.0)
    assert distance(both, drawn(pipeline, "dog", cfg_scale=5.0)) <= 1
    assert distance(drawn(pipeline, "dog :0.5", cfg_scale=6.0), drawn(pipeline, "dog", cfg_scale=3.0)) <= 1


def test_what_lies_beyond_the_text_encoders_length_is_seen(pipeline: Pipeline) -> None:
    long = "dog " * 80
    (part,) = pipeline.encode_prompts(f"{long}cat")
    assert part.conditionings[0].context.shape[1] == 2 * 77
    assert distance(drawn(pipeline, f"{long}cat"), drawn(pipeline, f"{long}apple")) > 0


def write_embedding(path: Path, vectors: torch.Tensor) -> Path:
    save_file({"emb_params": vectors.contiguous()}, path)
    return path


def test_an_embedding_of_words_own_vectors_is_these_words(tiny_model: Path, tmp_path: Path) -> None:
    plain = load(str(tiny_model), device="cpu", dtype="float32")
    ids = plain.files.tokenizer.ids("red dog")
    table = plain.networks["text"].tokens.weight.detach()
    file = write_embedding(tmp_path / "zorb.safetensors", table[list(ids)].clone())
    pipeline = load(str(tiny_model), device="cpu", dtype="float32", embedding=str(file))
    assert distance(drawn(pipeline, "the zorb on"), drawn(plain, "the red dog on")) == 0
    assert [each.name for each in pipeline.embeddings] == ["zorb"]
    assert distance(drawn(pipeline, "the cat"), drawn(plain, "the cat")) == 0
    assert pipeline.embeddings == ()


def test_an_embedding_for_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    file = write_embedding(tmp_path / "wide.safetensors", torch.zeros(2, 1024))
    with pytest.raises(CheckpointError, match=r"made for Stable Diffusion 2\.x"):
        load(str(tiny_model), embedding=str(file))


def test_embeddings_in_the_folder_are_known_by_their_names(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embeddings").mkdir()
    pipeline = load(str(tiny_model), device="cpu", dtype="float32")
    before = drawn(pipeline, "a zorb")
    width = pipeline.files.config.text.width
    write_embedding(tmp_path / "embeddings" / "zorb.safetensors", torch.ones(1, width))
    pipeline = load(str(tiny_model), device="cpu", dtype="float32")
    assert distance(drawn(pipeline, "a zorb"), before) > 0
