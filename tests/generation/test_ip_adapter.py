"""Pictures that a picture prompts are diffusers', to one level of 255; and what is said of bad files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from sdscratch import Pipeline, load
from sdscratch.addons.control import open_controls
from sdscratch.addons.control_requests import ControlRequest
from sdscratch.checkpoints.layouts.ip_adapter import image_encoder_weights
from sdscratch.errors import CheckpointError
from sdscratch.images.fit import square
from sdscratch.images.hints import hint_levels
from sdscratch.models.image_encoder import ImageEncoder, normalised
from support.checkpoints import TINY, ldm_tensors, tiny_tokenizer, write_ldm
from support.controlnets import control_tensors, hint
from support.ip_adapters import ENCODER, PROMPTS, encoder_of_diffusers, write_encoder, write_prompt
from support.reference import Reference, difference, sketch

PROMPT = "the red apple on the dog"
KINDS = tuple(PROMPTS)


@dataclass(frozen=True)
class Models:
    """Ours and diffusers', of the same files."""

    ours: Pipeline
    theirs: Reference
    folder: Path

    def request(self, kind: str, **about: Any) -> ControlRequest:
        return ControlRequest(str(self.folder / f"{kind}.safetensors"), hint(), **about)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("prompted")
    file = write_ldm(folder / "tiny.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})
    tokenizer = tiny_tokenizer()
    reference = Reference(file, TINY, tokenizer, tmp_path_factory.mktemp("configs"))
    (folder / "tokenizer").mkdir()
    for name, text in tokenizer.to_files().items():
        (folder / "tokenizer" / name).write_text(text)
    for seed, kind in enumerate(KINDS):
        write_prompt(folder / f"{kind}.safetensors", kind, seed)
    write_encoder(folder / "image_encoder")
    pipeline = load(str(file), device="cpu", dtype="float32", tokenizer=str(folder / "tokenizer"))
    return Models(pipeline, reference, folder)


@contextmanager
def with_adapters(models: Models, kinds: list[str], weights: list[float]) -> Iterator[Reference]:
    """diffusers' pipelines with these IP-Adapters, loaded by its own loader."""
    network, processor = encoder_of_diffusers()
    states = []
    for kind in kinds:
        parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load_file(models.folder / f"{kind}.safetensors").items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        states.append(parts)
    reference = models.theirs
    before = reference.text.unet.attn_processors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pipeline in (reference.text, reference.image):
            pipeline.register_modules(image_encoder=network, feature_extractor=processor)
        none = [None] * len(states)
        reference.text.load_ip_adapter(states, subfolder=none, weight_name=none, image_encoder_folder=None)
        reference.text.set_ip_adapter_scale(weights)
        try:
            yield reference
        finally:
            reference.text.unload_ip_adapter()
            reference.text.unet.set_attn_processor(before)


def of_diffusers(
    models: Models, kinds: list[str], weights: list[float], init: Image.Image | None = None, **options: Any
) -> Image.Image:
    with with_adapters(models, kinds, weights) as reference:
        return reference.picture(
            PROMPT,
            sampler="euler",
            seed=3,
            init=init,
            num_inference_steps=4,
            ip_adapter_image=[hint()] * len(kinds),
            **options,
        )


def ours(models: Models, *controls: ControlRequest, **options: Any) -> Image.Image:
    asked = {"sampler": "euler", "steps": 4, "seed": 3, "width": 64, "height": 72} | options
    return models.ours.txt2img(PROMPT, control=controls, **asked)


def test_the_encoder_is_transformers() -> None:
    network, processor = encoder_of_diffusers()
    mine = ImageEncoder(ENCODER).eval()
    tensors = control_tensors(image_encoder_weights(ENCODER))
    mine.load_state_dict({weight.name: tensor for weight, tensor in tensors.items()})
    for picture in (hint(), sketch(101, 57), sketch(28, 90)):
        levels = torch.from_numpy(hint_levels(square(picture, ENCODER.side))).permute(2, 0, 1)[None]
        theirs = processor(images=picture, return_tensors="pt").pixel_values
        with torch.no_grad():
            told = network(theirs, output_hidden_states=True)
            pixels = normalised(levels)
            assert_close(pixels, theirs, rtol=1e-5, atol=1e-5)
            assert_close(mine(pixels), told.image_embeds, rtol=1e-5, atol=1e-5)
            assert_close(mine.hidden(pixels), told.hidden_states[-2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompted_picture_is_the_references(kind: str, models: Models) -> None:
    mine = ours(models, models.request(kind, weight=0.7))
    theirs = of_diffusers(models, [kind], [0.7], width=64, height=72, guidance_scale=7.5)
    assert difference(mine, theirs)[0] <= 1
    assert difference(mine, ours(models))[0] > 2


def test_unguided_together_and_of_a_picture(models: Models) -> None:
    both = [models.request("classic", weight=0.7), models.request("plus", weight=-0.6)]
    theirs = of_diffusers(models, ["classic", "plus"], [0.7, -0.6], width=64, height=72, guidance_scale=1.0)
    assert difference(ours(models, *both, cfg_scale=1.0), theirs)[0] <= 1
    init = sketch(64, 72)
    told = models.request("full", weight=1.2)
    asked = {"sampler": "euler", "steps": 4, "seed": 3, "strength": 0.8, "cfg_scale": 5.0}
    mine = models.ours.img2img(init, PROMPT, control=[told], **asked)
    theirs = of_diffusers(models, ["full"], [1.2], init, strength=0.8, guidance_scale=5.0)
    assert difference(mine, theirs)[0] <= 1


def test_a_picture_moves_with_all_that_is_asked(models: Models) -> None:
    told = models.request("plus")
    pictures = [
        ours(models),
        ours(models, told),
        ours(models, replace(told, weight=0.5)),
        ours(models, replace(told, end=0.5)),
        ours(models, replace(told, mode="control")),
        ours(models, replace(told, preprocess="invert")),
        ours(models, replace(told, image=sketch(40, 90))),
        ours(models, told, like="comfyui", prompt_syntax="a1111"),
        ours(models, told, models.request("classic")),
    ]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert difference(one, other)[0] > 0
    assert difference(pictures[1], ours(models, told))[0] == 0
    assert difference(pictures[0], ours(models, replace(told, weight=0.0)))[0] == 0


def test_its_record_names_the_encoder(models: Models) -> None:
    (control,) = open_controls([models.request("plus")], models.ours.files)
    record = control.record().to_record()
    assert record["name"] == "plus"
    assert record["encoder"] == control.file.encoder.files.hash()  # type: ignore[attr-defined]


def without_encoder(folder: Path, models: Models) -> ControlRequest:
    return ControlRequest(str(write_prompt(folder / "inner.safetensors", "plus")), hint())


def with_anothers(folder: Path, models: Models) -> ControlRequest:
    write_encoder(folder / "other", replace(ENCODER, width=40))
    path = write_prompt(folder / "inner.safetensors", "plus")
    return ControlRequest(str(path), hint(), encoder=str(folder / "other"))


def with_a_text_encoder(folder: Path, models: Models) -> ControlRequest:
    return models.request("plus", encoder=str(models.folder / "tiny.safetensors"))


def of_faces(folder: Path, models: Models) -> ControlRequest:
    path = folder / "face.safetensors"
    keep = {f"image_proj.{name}": torch.zeros(3) for name in ("norm.weight", "norm.bias")}
    save_file({**keep, "image_proj.proj.0.weight": torch.zeros(3, 3)}, path)
    return ControlRequest(str(path), hint())


def of_another_model(folder: Path, models: Models) -> ControlRequest:
    path = write_prompt(folder / "other.safetensors", "classic")
    tensors = load_file(path)
    save_file({**tensors, "ip_adapter.1.to_k_ip.weight": torch.zeros(16, 2048)}, path)
    return ControlRequest(str(path), hint(), encoder=str(models.folder / "image_encoder"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (without_encoder, "its image encoder is not there; put the folder image_encoder"),
        (with_anothers, "gives 40; take the encoder that it was published with"),
        (with_a_text_encoder, "is no CLIP image encoder as IP-Adapters take"),
        (of_faces, "needs a face recogniser|need a face recogniser"),
        (of_another_model, "for another kind of model"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(made: Any, said: str, models: Models, tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_controls([made(tmp_path / "deep" / "deeper", models)], models.ours.files)
    assert str(caught.value).count(". ") == 0
