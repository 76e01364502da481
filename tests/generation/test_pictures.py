"""The product's main promise: the reference's picture from the reference's file, to one level of 255."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from sdscratch import Pipeline, load
from sdscratch.models.config import SD1
from sdscratch.text.tokenizer import Tokenizer
from support.checkpoints import TINY, full_size_checkpoint, ldm_tensors, tiny_tokenizer, write_ldm
from support.diffusion import SAMPLERS
from support.reference import Reference, difference, sketch
from support.shared import shared_path

PROMPT = "the red apple on the dog"


@dataclass(frozen=True)
class Case:
    """What is asked of both; names as diffusers has them."""

    sampler: str
    width: int = 64
    height: int = 64
    steps: int = 4
    scale: float = 7.5
    seed: int = 0
    strength: float | None = None  # image-to-image where given
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        start = "" if self.strength is None else f" strength {self.strength}"
        extra = "".join(f" {name}={value}" for name, value in self.more.items())
        return f"{self.sampler} {self.width}x{self.height} scale {self.scale}{start}{extra}"


CASES = [
    *(Case(sampler) for sampler in SAMPLERS),
    *(Case(sampler, 72, 104, scale=1.0, seed=5) for sampler in SAMPLERS),
    *(Case(sampler, 96, 64, steps=7, strength=0.6, seed=2) for sampler in SAMPLERS),
    Case("ddpm", 72, 104, strength=1.0, scale=1.0),
    Case("euler", 75, 101, strength=0.5),
    Case("ddim", strength=0.3, more={"eta": 0.5}),
    Case("ddim", 64, 88, more={"eta": 1.0}),
    Case("dpm++2m", 136, 72, more={"negative_prompt": "cat"}),
    # unguided: diffusers skips layers for the prompt alone, the web UIs and we for the negative prompt too
    Case("euler", scale=1.0, more={"clip_skip": 1}),
]


def pictures(case: Case, pipeline: Pipeline, reference: Reference) -> tuple[Image.Image, Image.Image]:
    """Ours and the reference's."""
    init = None if case.strength is None else sketch(case.width, case.height)
    strength = {} if case.strength is None else {"strength": case.strength}
    ours = {
        "sampler": case.sampler,
        "steps": case.steps,
        "cfg_scale": case.scale,
        "seed": case.seed,
        **strength,
    }
    theirs: dict[str, Any] = {
        "num_inference_steps": case.steps,
        "guidance_scale": case.scale,
        **strength,
        **case.more,
    }
    if init is None:
        size = {"width": case.width, "height": case.height}
        mine = pipeline.txt2img(PROMPT, **ours, **size, **case.more)
        theirs |= size
    else:
        mine = pipeline.img2img(init, PROMPT, **ours, **case.more)
    return mine, reference.picture(PROMPT, sampler=case.sampler, seed=case.seed, init=init, **theirs)


def check(case: Case, pipeline: Pipeline, reference: Reference) -> None:
    greatest, mean = difference(*pictures(case, pipeline, reference))
    assert greatest <= 1, f"{greatest} levels apart"
    assert mean <= 0.01, f"{mean} levels apart on average"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Reference]:
    folder = tmp_path_factory.mktemp("tiny")
    file = write_ldm(folder / "tiny.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})
    tokenizer = tiny_tokenizer()
    reference = Reference(file, TINY, tokenizer, tmp_path_factory.mktemp("configs"))
    (folder / "tokenizer").mkdir()
    for name, text in tokenizer.to_files().items():
        (folder / "tokenizer" / name).write_text(text)
    return load(str(file), device="cpu", dtype="float32", tokenizer=str(folder / "tokenizer")), reference


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_tiny_model_gives_the_references_picture(case: Case, tiny: tuple[Pipeline, Reference]) -> None:
    check(case, *tiny)


def test_the_tiny_pictures_move_when_anything_is_computed_otherwise(tiny: tuple[Pipeline, Reference]) -> None:
    pipeline, reference = tiny
    ours, theirs = pictures(Case("euler"), pipeline, reference)
    others: list[Callable[[], Image.Image]] = [
        lambda: pipeline.txt2img(PROMPT, sampler="ddim", steps=4, cfg_scale=7.5, seed=0, width=64, height=64),
        lambda: pipeline.txt2img(
            PROMPT + " cat", sampler="euler", steps=4, cfg_scale=7.5, seed=0, width=64, height=64
        ),
        lambda: pipeline.txt2img(
            PROMPT, sampler="euler", steps=4, cfg_scale=7.0, seed=0, width=64, height=64
        ),
    ]
    assert difference(ours, theirs)[0] <= 1
    for other in others:
        assert difference(other(), theirs)[0] > 1


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Reference]:
    table = shared_path("clip", "bpe_simple_vocab_16e6.txt.gz")
    file = full_size_checkpoint()
    reference = Reference(file, SD1, Tokenizer.from_path(table), tmp_path_factory.mktemp("configs"))
    return load(str(file), device="cpu", dtype="float32", tokenizer=str(table)), reference


@pytest.mark.full
@pytest.mark.parametrize(
    "case", [*CASES, Case("dpm++2m", 512, 512, steps=2), Case("euler_a", 328, 200, steps=3)], ids=str
)
def test_a_full_size_model_gives_the_references_picture(case: Case, full: tuple[Pipeline, Reference]) -> None:
    check(case, *full)
