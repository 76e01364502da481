"""Models made of models are the sums that were asked for; an inpainting model of any is one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdscratch.addons.merge import Merged, _fits, open_difference, open_merged, parse_difference, parse_merge
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError, UsageError
from support.checkpoints import SMALLER, TINY, ldm_tensors, self_contained, write_ldm
from support.cli import sdscratch


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abc"):
        write_ldm(tmp_path / f"{name}.safetensors", ldm_tensors(seed=seed), self_contained())
    return tmp_path


def read(name: str) -> dict[str, torch.Tensor]:
    files = open_model(name)
    return {weight.ldm: files.read(weight) for weight in weights(TINY)}


def test_a_merge_is_the_weighted_sum(models: Path) -> None:
    run = sdscratch("convert-weights", "ab.safetensors", "--merge", "a.safetensors:0.7,b.safetensors:0.3")
    assert (run.code, run.lines) == (0, ["ab.safetensors"]), run.stderr
    a, b, found = read("a.safetensors"), read("b.safetensors"), read("ab.safetensors")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.7 * a[name] + 0.3 * b[name], atol=1e-6, rtol=1e-5)
    three = open_merged(parse_merge("a.safetensors,b.safetensors,c.safetensors"))
    c = read("c.safetensors")
    for weight in weights(TINY):
        mean = (a[weight.ldm] + b[weight.ldm] + c[weight.ldm]) / 3
        torch.testing.assert_close(three.read(weight).reshape(mean.shape), mean, atol=1e-6, rtol=1e-5)


def test_a_difference_is_added(models: Path) -> None:
    run = sdscratch(
        "convert-weights",
        "new.safetensors",
        "--add-difference",
        "a.safetensors,b.safetensors,c.safetensors:0.5",
    )
    assert run.code == 0, run.stderr
    a, b, c, found = (read(f"{name}.safetensors") for name in ("a", "b", "c", "new"))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, a[name] + 0.5 * (b[name] - c[name]), atol=1e-6, rtol=1e-5)
    same = open_difference("b.safetensors", "a.safetensors", "a.safetensors", 1.0)
    for weight in weights(TINY):
        torch.testing.assert_close(
            same.read(weight), b[weight.ldm].reshape(weight.shape), atol=1e-6, rtol=1e-5
        )


def test_models_of_other_shapes_and_nonsense_are_refused(models: Path) -> None:
    write_ldm(models / "small.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))
    with pytest.raises(CheckpointError, match=r"cannot be merged into .*must be of one shape"):
        open_merged(parse_merge("a.safetensors,small.safetensors"))
    for text in ("a", "a:1", "", "a:0.5,b", "a:0.5,:0.5", "a:1e999,b:1"):
        with pytest.raises(UsageError, match="--merge"):
            parse_merge(text)
    for text in ("a,b", "a,b,c,d", "a:1,b,c", "a,b,c:1e999"):
        with pytest.raises(UsageError, match="--add-difference"):
            parse_difference(text)
    assert [share.name for share in parse_merge("a,,b:0.5,c:0.5")] == ["a,b", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to convert"),
        (["x.safetensors", "--merge", "a.safetensors"], "names one model"),
        (["c.safetensors", "x.safetensors", "--merge", "a.safetensors,b.safetensors"], "leave out SRC"),
        (["x.safetensors", "--merge", "a,b", "--add-difference", "a,b,c"], "one or the other"),
    ],
)
def test_wrong_usage_is_one_sentence(models: Path, arguments: list[str], said: str) -> None:
    run = sdscratch("convert-weights", *arguments, "-q")
    assert run.code == 2
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_the_first_convolution_of_an_inpainting_model_keeps_its_other_channels(models: Path) -> None:
    b, c = open_model("b.safetensors"), open_model("c.safetensors")
    (first,) = (weight for weight in weights(TINY) if weight.ldm.endswith("input_blocks.0.0.weight"))
    nine = replace(first, shape=(16, 9, 3, 3))
    own = torch.randn(nine.shape, generator=torch.Generator().manual_seed(0))
    found = Merged(1.0, ((b, 1.0), (c, -1.0))).apply(nine, own)
    torch.testing.assert_close(found[:, :4], own[:, :4] + b.read(first) - c.read(first), atol=1e-6, rtol=1e-5)
    assert torch.equal(found[:, 4:], own[:, 4:])
    assert _fits(nine, first)
    assert not _fits(first, nine)


def test_a_merged_model_says_what_it_is_made_of(models: Path) -> None:
    assert sdscratch("convert-weights", "--merge", "a.safetensors:0.7,b.safetensors:0.3", "-q").code == 0
    made = open_model("a-b.safetensors")
    (noted,) = json.loads(made.metadata["sdscratch.provenance"])["merged"]
    other = {"name": "b", "hash": open_model("b.safetensors").hash(), "factor": 0.3}
    assert noted == {"own_factor": 0.7, "others": [other]}


def test_any_model_becomes_one_that_inpaints(tmp_path: Path) -> None:
    nine = replace(TINY, unet=replace(TINY.unet, in_channels=9))
    made = {"inpainting": (nine, 1), "mine": (TINY, 2), "base": (TINY, 3)}
    for name, (config, seed) in made.items():
        tensors = ldm_tensors(config, seed=seed)
        write_ldm(tmp_path / f"{name}.safetensors", tensors, self_contained(config))
    names = ",".join(str(tmp_path / f"{name}.safetensors") for name in made)
    result = sdscratch("convert-weights", tmp_path / "new.safetensors", "--add-difference", names, "-q")
    assert result.code == 0, result.stderr
    files = open_model(tmp_path / "new.safetensors")
    assert files.config == nine
    a, b, c = (ldm_tensors(config, seed=seed) for config, seed in made.values())
    for weight in files.stored:
        wanted = a[weight.ldm].clone()
        here = tuple(slice(side) for side in b[weight.ldm].shape)
        wanted[here] += b[weight.ldm] - c[weight.ldm]
        torch.testing.assert_close(files.read(weight), wanted.reshape(weight.shape), atol=1e-5, rtol=1e-5)
