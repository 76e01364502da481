"""With a LoRA, too: the picture of diffusers' loader, from the same files, to one level of 255."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdscratch import Pipeline, load
from sdscratch.addons.apply import open_with_addons
from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.model import open_model
from support.checkpoints import TINY, ldm_tensors, self_contained, tiny_tokenizer, write_ldm
from support.loras import changes, is_attention, targets, write_lora
from support.reference import Reference, difference, sketch

PROMPT = "the red apple on the dog"
SAMPLER = {"sampler": "euler", "seed": 3}
OURS = {"steps": 4, "cfg_scale": 7.5, "width": 64, "height": 64}
THEIRS = {"num_inference_steps": 4, "guidance_scale": 7.5, "width": 64, "height": 64}

# diffusers gives the first layers, the last and the time embedding no kohya names
ENDS = ("conv_in", "conv_out", "time_embedding")
EVERYTHING = [weight for weight in targets() if not any(end in weight.diffusers for end in ENDS)]
ATTENTION = [weight for weight in targets() if is_attention(weight)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and LoRAs for it: `full` is kohya's with all kinds of layers, the others are attention's."""
    folder = tmp_path_factory.mktemp("loras")
    write_ldm(folder / "model.safetensors", ldm_tensors(), self_contained())
    full, small = changes(EVERYTHING, rank=4), changes(ATTENTION, rank=2, alpha=2.0, seed=1)
    write_lora(folder / "full.safetensors", full)
    write_lora(folder / "peft.safetensors", small, "PEFT")
    write_lora(folder / "processors.safetensors", small, "diffusers, processors")
    settings = {
        f"{part}.{key}": value
        for part in ("unet", "text_encoder")
        for key, value in {"r": 2, "lora_alpha": 5, "target_modules": ["to_q", "q_proj"]}.items()
    }
    queries = changes([w for w in ATTENTION if w.name.endswith("query.weight")], rank=2, alpha=2.0, seed=2)
    write_lora(folder / "noted.safetensors", queries, "PEFT", settings=settings)
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(folder / "model.safetensors", TINY, tiny_tokenizer(), tmp_path_factory.mktemp("configs"))


def ours(folder: Path, *loras: str) -> Pipeline:
    model = str(folder / "model.safetensors")
    return load(model, device="cpu", dtype="float32", lora=[str(folder / lora) for lora in loras])


def plain(folder: Path) -> Image.Image:
    return ours(folder).txt2img(PROMPT, **SAMPLER, **OURS)


@pytest.mark.parametrize("name", ["full", "peft", "processors", "noted"])
@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_the_picture_is_that_of_diffusers_loader(
    folder: Path, reference: Reference, name: str, weight: float
) -> None:
    file = f"{name}.safetensors"
    mine = ours(folder, f"{file}:{weight}").txt2img(PROMPT, **SAMPLER, **OURS)
    with reference.with_loras({folder / file: weight}):
        theirs = reference.picture(PROMPT, **SAMPLER, **THEIRS)  # type: ignore[arg-type]
    assert difference(mine, theirs)[0] <= 1
    assert difference(mine, plain(folder))[0] > 8


def test_two_at_once_and_image_to_image(folder: Path, reference: Reference) -> None:
    init = sketch(64, 64)
    pipeline = ours(folder, "full.safetensors:-0.5")
    prompt = f"{PROMPT}<lora:{folder / 'peft.safetensors'}:0.75>"
    mine = pipeline.img2img(init, prompt, strength=0.75, **SAMPLER, steps=4, cfg_scale=7.5)
    options = {"num_inference_steps": 4, "guidance_scale": 7.5, "strength": 0.75}
    with reference.with_loras({folder / "full.safetensors": -0.5, folder / "peft.safetensors": 0.75}):
        theirs = reference.picture(PROMPT, init=init, **SAMPLER, **options)  # type: ignore[arg-type]
    assert difference(mine, theirs)[0] <= 1


def test_a_baked_model_gives_the_same_picture(folder: Path, tmp_path: Path) -> None:
    source, lora = folder / "model.safetensors", folder / "full.safetensors"
    convert(open_with_addons(source, lora=f"{lora}:0.6"), tmp_path / "baked.safetensors", "ldm")
    baked = load(str(tmp_path / "baked.safetensors"), device="cpu", dtype="float32")
    mine = ours(folder, "full.safetensors:0.6").txt2img(PROMPT, **SAMPLER, **OURS)
    assert difference(baked.txt2img(PROMPT, **SAMPLER, **OURS), mine) == (0, 0.0)


def test_a_tag_means_what_the_option_means_and_ends_with_its_prompt(folder: Path) -> None:
    pipeline = ours(folder)
    before = pipeline.txt2img(PROMPT, **SAMPLER, **OURS)
    tagged = pipeline.txt2img(f"<lora:{folder / 'full.safetensors'}:0.6>{PROMPT}", **SAMPLER, **OURS)
    assert [lora.weight for lora in pipeline.loras] == [0.6]
    optional = ours(folder, "full.safetensors:0.6").txt2img(PROMPT, **SAMPLER, **OURS)
    assert difference(tagged, optional) == (0, 0.0)
    assert difference(tagged, before)[0] > 8
    assert difference(pipeline.txt2img(PROMPT, **SAMPLER, **OURS), before) == (0, 0.0)
    assert pipeline.loras == ()
    idle = pipeline.txt2img(f"{PROMPT}<lora:{folder / 'full.safetensors'}:0>", **SAMPLER, **OURS)
    assert difference(idle, before) == (0, 0.0)


# --- Other add-ons -----------------------------------------------------------------------------------------


def test_a_dora_gives_diffusers_picture(folder: Path, reference: Reference) -> None:
    made = changes([w for w in ATTENTION if w.part == "unet"], rank=2, alpha=2.0, seed=4)
    path = write_lora(folder / "dora.safetensors", made, "PEFT")
    own = open_model(folder / "model.safetensors")
    lengths = {}
    for index, (weight, change) in enumerate(made.items()):
        norm = (own.read(weight) + change.delta(weight)).norm(dim=1)
        stretch = 1 + 0.3 * torch.sin(torch.arange(len(norm)) + index)
        name = weight.diffusers.removesuffix(".weight").replace("/", ".")
        lengths[f"{name}.lora_magnitude_vector"] = norm * stretch
    save_file(load_file(path) | lengths, path)
    drawn = ours(folder, "dora.safetensors").txt2img(PROMPT, **SAMPLER, **OURS)
    with reference.with_loras({path: 1.0}):
        expected = reference.picture(PROMPT, **SAMPLER, **THEIRS)
    assert difference(drawn, expected)[0] <= 1
    assert difference(drawn, plain(folder))[0] > 8


def test_another_vae_gives_the_picture_of_a_model_that_has_it(folder: Path, tmp_path: Path) -> None:
    other = {
        name: tensor * 1.05 + 0.01
        for name, tensor in ldm_tensors().items()
        if name.startswith("first_stage_model.")
    }
    save_file({name.removeprefix("first_stage_model."): t for name, t in other.items()}, tmp_path / "vae.pt")
    whole = write_ldm(tmp_path / "whole.safetensors", ldm_tensors() | other, self_contained())
    theirs = Reference(whole, TINY, tiny_tokenizer(), tmp_path / "configs")
    model = str(folder / "model.safetensors")
    pipeline = load(model, device="cpu", dtype="float32", vae=str(tmp_path / "vae.pt"))
    start = sketch(64, 64)
    drawn = pipeline.img2img(start, PROMPT, **SAMPLER, steps=4, cfg_scale=7.5)
    options = {"num_inference_steps": 4, "guidance_scale": 7.5, "strength": 0.75}
    expected = theirs.picture(PROMPT, init=start, **SAMPLER, **options)
    assert difference(drawn, expected)[0] <= 1
