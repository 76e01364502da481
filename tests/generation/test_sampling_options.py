"""What is asked of levels, predictions, noise, guidance and weights reaches the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sdscratch.checkpoints.model import open_model
from sdscratch.device import choose
from sdscratch.errors import UsageError
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.options import GenerateOptions
from sdscratch.options.picture import EMPHASES
from sdscratch.text import emphasis
from support.reference import difference, sketch

# Wide enough for two positions at the tiny model's innermost level, where attention is perturbed.
SMALL: dict[str, Any] = {
    "width": 128,
    "height": 64,
    "steps": 3,
    "seed": 5,
    "cfg_scale": 4.0,
    "sampler": "euler",
}
PROMPT = "the red apple on the dog"


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def draw(pipeline: Pipeline, prompt: str = PROMPT, **asked: Any) -> Image.Image:
    return pipeline.txt2img(prompt, **SMALL | asked)


@pytest.fixture(scope="module")
def plain(pipeline: Pipeline) -> Image.Image:
    return draw(pipeline)


def same(one: Image.Image, other: Image.Image, levels: int = 0) -> bool:
    return difference(one, other)[0] <= levels


TRICKS: dict[str, dict[str, Any]] = {
    "rescale": {"rescale_cfg": 0.7},
    "threshold": {"dynamic_threshold": "1.5,90"},
    "apg": {"apg": "0,-0.5,3"},
    "pag": {"pag_scale": 30.0},
    "freeu": {"freeu": "1.5,1.6,0.5,0.2"},
}
ALL = {name: value for trick in ("rescale", "apg", "pag", "freeu") for name, value in TRICKS[trick].items()}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_changes_the_picture_that_it_is_asked_for_and_no_other(
    trick: str, pipeline: Pipeline, plain: Image.Image
) -> None:
    assert not same(draw(pipeline, **TRICKS[trick]), plain)
    assert same(draw(pipeline), plain)


@pytest.mark.parametrize("sampler", ["dpm++sde", "dpm++2m_cfg++"])
def test_tricks_go_with_samplers_of_every_kind(sampler: str, pipeline: Pipeline) -> None:
    asked = SMALL | ALL | {"sampler": sampler, "steps": 2}
    together = pipeline.txt2img(PROMPT, batch_count=2, batch_size=2, **asked)
    for index, picture in enumerate(together):
        assert same(picture, pipeline.txt2img(PROMPT, **asked | {"seed": 5 + index}))


def test_perturbed_attention_needs_no_guidance(pipeline: Pipeline) -> None:
    unguided = draw(pipeline, cfg_scale=1.0)
    assert not same(draw(pipeline, cfg_scale=1.0, pag_scale=30.0), unguided)
    for trick in ("rescale", "threshold", "apg"):  # which change guidance, where there is some
        assert same(draw(pipeline, cfg_scale=1.0, **TRICKS[trick]), unguided)


def test_what_freeu_multiplies_by_one_stays(pipeline: Pipeline, plain: Image.Image) -> None:
    assert same(draw(pipeline, freeu="1,1,1,1"), plain, 1)


def test_tricks_are_refused_together_or_out_of_range(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="--apg and --dynamic-threshold are two ways to guide"):
        draw(pipeline, apg="0", dynamic_threshold="7")
    for name, value in {"apg": "x", "freeu": "1,2,3", "dynamic_threshold": "7,0"}.items():
        with pytest.raises(UsageError, match=f"the {name.replace('_', '-')} is '{value}', but must be"):
            GenerateOptions("a dog", **{name: value})


# --- Levels and predictions --------------------------------------------------------------------------------


def test_levels_of_ones_own_are_gone_through(pipeline: Pipeline) -> None:
    karras = draw(pipeline, scheduler="karras")
    options = pipeline.resolve(GenerateOptions("", scheduler="karras", **SMALL))
    levels = ",".join(map(str, pipeline.path(options).sigmas))
    asked = SMALL | {"steps": None}
    assert same(pipeline.txt2img(PROMPT, sigmas=levels, **asked), karras, 1)
    resolved = pipeline.resolve(GenerateOptions("", sigmas=" 7 2,0", **asked))
    assert (resolved.steps, resolved.sigmas, resolved.strength) == (2, "7.0,2.0,0.0", 1.0)
    path = pipeline.path(resolved, from_init=True)
    assert (path.sigmas, path.start_scale) == ((7.0, 2.0, 0.0), 7.0)
    changed = pipeline.img2img(
        sketch(64, 64), PROMPT, sigmas="0.3,0.1,0", steps=None, sampler="euler", seed=1
    )
    kept = pipeline.img2img(sketch(64, 64), PROMPT, strength=0.0, seed=1)
    assert difference(changed, kept)[1] < 30


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sigmas": "1,2"}, "--sigmas must fall from step to step"),
        ({"sigmas": "5,1", "scheduler": "karras"}, "leave --scheduler and --strength out"),
        ({"sigmas": "5,1", "strength": 0.5}, "leave --scheduler and --strength out"),
        ({"sigmas": "5,1", "steps": 7}, "--sigmas makes 1 steps, but --steps is 7"),
        ({"variation_seed": 3}, "--variation-seed varies the picture by --variation-strength"),
        ({"seed_resize": "32x512"}, "the seed-resize is '32x512'"),
        ({"emphasis": "compel"}, "does not go with prompts of the syntax a1111"),
        (
            {"emphasis": "original", "prompt_syntax": "compel"},
            "does not go with prompts of the syntax compel",
        ),
        ({"prediction": "x0"}, "prediction is 'x0', but must be one of epsilon, v"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    asked: dict[str, Any], said: str, pipeline: Pipeline
) -> None:
    with pytest.raises(UsageError, match=said):
        pipeline.resolve(GenerateOptions("a dog", **asked))


@pytest.mark.parametrize(
    ("asked", "said"), [({"prediction": "v"}, {"prediction": "v"}), ({"zero_snr": True}, {"zero_snr": True})]
)
def test_what_a_file_does_not_say_can_be_said_for_it(
    asked: dict[str, Any], said: dict[str, Any], pipeline: Pipeline, plain: Image.Image, tiny_model: Path
) -> None:
    files = open_model(tiny_model)
    saying = replace(files, config=replace(files.config, schedule=replace(files.config.schedule, **said)))
    with Pipeline(saying, choose("cpu", "float32")) as other:
        expected = other.txt2img(PROMPT, **SMALL | {"sampler": "dpm++2m"})
        undone = {"prediction": "epsilon"} if "prediction" in asked else {"zero_snr": False}
        assert same(other.txt2img(PROMPT, **SMALL | undone), plain)
    drawn = draw(pipeline, sampler="dpm++2m", **asked)
    assert same(drawn, expected)
    assert not same(drawn, draw(pipeline, sampler="dpm++2m"), 1)


# --- Variations --------------------------------------------------------------------------------------------


def test_a_variation_goes_from_one_picture_to_another(pipeline: Pipeline, plain: Image.Image) -> None:
    other = draw(pipeline, seed=77)
    assert same(draw(pipeline, variation_seed=77, variation_strength=0.0), plain)
    assert same(draw(pipeline, variation_seed=77, variation_strength=1.0), other, 1)
    between = draw(pipeline, variation_seed=77, variation_strength=0.3)
    assert 0 < difference(between, plain)[1] < difference(other, plain)[1]


def test_of_several_variations_the_variation_s_seed_counts_up(pipeline: Pipeline) -> None:
    asked = {"variation_seed": 9, "variation_strength": 0.4}
    for size in (1, 2):
        drawn = pipeline.txt2img(PROMPT, batch_count=2, batch_size=size, **SMALL | asked)
        for index, picture in enumerate(drawn):
            assert same(picture, draw(pipeline, **asked | {"variation_seed": 9 + index}))
    own = pipeline.resolve(GenerateOptions("", variation_strength=0.4, **SMALL))
    assert own.variation_seed == 6  # the seed's next, so that the same is drawn each time


def test_a_variation_of_image_to_image_varies_the_noise_not_the_encoding(pipeline: Pipeline) -> None:
    def start(**asked: Any) -> torch.Tensor:
        resolved = pipeline.resolve(GenerateOptions("", **SMALL | {"width": 64} | asked), sketch(64, 64))
        latents = [next(pipeline.steps(resolved, init=sketch(64, 64))).latent]
        return latents[0]

    low = {"sigmas": "0.002,0", "steps": None}  # hardly any noise: what is left is the encoding
    torch.testing.assert_close(start(**low, variation_strength=1.0), start(**low), atol=0.02, rtol=0)
    assert not torch.equal(start(variation_strength=1.0), start())


def test_a_number_added_to_the_seed_changes_later_noise_alone(pipeline: Pipeline, plain: Image.Image) -> None:
    assert same(draw(pipeline, ensd=31337), plain)  # Euler draws none
    fresh = draw(pipeline, sampler="euler_a")
    assert not same(draw(pipeline, sampler="euler_a", ensd=31337), fresh, 1)
    starts = [
        next(pipeline.steps(pipeline.resolve(GenerateOptions("", ensd=n, **SMALL)))).latent for n in (0, 9)
    ]
    assert torch.equal(*starts)


def test_another_size_begins_with_the_middle_of_the_same_noise(pipeline: Pipeline) -> None:
    def start(**asked: Any) -> torch.Tensor:
        return next(
            pipeline.steps(pipeline.resolve(GenerateOptions("", **SMALL | {"width": 64} | asked)))
        ).latent

    small, wide = start(), start(width=96, seed_resize="64x64")
    assert torch.equal(wide[..., 2:10], small)
    assert not torch.equal(wide, start(width=96))


# --- Emphasis ----------------------------------------------------------------------------------------------


def test_the_options_know_every_emphasis() -> None:
    assert EMPHASES == emphasis.EMPHASES


def test_weights_do_what_was_asked_for(pipeline: Pipeline, plain: Image.Image) -> None:
    weighed = "the (red:1.4) apple on the dog"
    drawn = {each: draw(pipeline, weighed, emphasis=each) for each in (None, "no-norm", "ignore", "comfyui")}
    assert same(drawn["ignore"], plain)
    pictures = list(drawn.values())
    assert all(not same(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    literal = draw(pipeline, weighed, emphasis="none")
    assert same(literal, draw(pipeline, weighed, prompt_syntax="plain"))
    assert same(draw(pipeline, weighed, emphasis="original"), drawn[None])


def test_guidance_within_an_interval_and_edits_count_the_same_evaluations(pipeline: Pipeline) -> None:
    asked = {"steps": 4, "cfg_interval": "2:"}
    edited = draw(pipeline, "[a dog:the red apple:2]", **asked)
    swapped = draw(pipeline, "[a dog:the cat:2]", **asked)
    assert not same(edited, swapped)  # the second prompt stands where there is no guidance any more
