"""A LoRA trained here draws the same picture by our own merge, by diffusers' loader, and baked in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdscratch import load
from sdscratch.addons.apply import open_with_addons
from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.model import open_model
from sdscratch.models.conditioning import Conditioning
from sdscratch.training.run.lora_options import LoraPlan, parse_targets
from sdscratch.training.tasks.lora import adapt, save_lora
from support.checkpoints import TINY, ldm_tensors, self_contained, tiny_tokenizer, write_ldm
from support.reference import Reference, difference

PROMPT = "the red apple on the dog"
SAMPLER = {"sampler": "euler", "seed": 3}
OURS = {"steps": 4, "cfg_scale": 7.5, "width": 64, "height": 64}
THEIRS = {"num_inference_steps": 4, "guidance_scale": 7.5, "width": 64, "height": 64}

PLANS = {
    "attention": LoraPlan(rank=4),
    "feed-forward": LoraPlan(rank=2, alpha=1.0, targets=parse_targets("attention,feed-forward")),
    "convolution": LoraPlan(rank=3, alpha=6.0, targets=parse_targets("attention,convolution")),
    "text-encoder": LoraPlan(rank=4, targets=parse_targets("all"), text_encoder=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and for every plan a LoRA trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    write_ldm(folder / "model.safetensors", ldm_tensors(), self_contained())
    for name, plan in PLANS.items():
        train(folder, name, plan)
    return folder


def train(folder: Path, name: str, plan: LoraPlan) -> None:
    """A few large steps towards random predictions: enough to move every adapter."""
    model = open_model(folder / "model.safetensors")
    parts = {part: model.load(part, "cpu", torch.float32) for part in ("text", "unet")}
    adapters = adapt(parts, TINY, plan, seed=1)
    optimiser = torch.optim.AdamW(adapters.parameters(), lr=0.04)
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        ids = torch.randint(0, TINY.text.vocabulary, (2, 20), generator=rng)
        x, target = torch.randn(2, 2, 4, 8, 8, generator=rng)
        prediction = parts["unet"](x, torch.tensor([100.0, 700.0]), Conditioning(parts["text"](ids)))
        (prediction - target).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    path = folder / f"{name}.safetensors"
    save_lora(path, adapters.state_dict(), plan, base_name="m", base_hash=model.hash(), provenance={})


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(folder / "model.safetensors", TINY, tiny_tokenizer(), tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Image.Image:
    return ours(folder)


def ours(folder: Path, *loras: str, model: str = "model") -> Image.Image:
    path = str(folder / f"{model}.safetensors")
    pipeline = load(path, device="cpu", dtype="float32", lora=[str(folder / lora) for lora in loras])
    return pipeline.txt2img(PROMPT, **SAMPLER, **OURS)


@pytest.mark.parametrize(("name", "weight"), [*zip(PLANS, (1.0, 0.6, 1.0, 0.7), strict=True)])
def test_the_picture_is_that_of_diffusers_loader(
    folder: Path, reference: Reference, plain: Image.Image, name: str, weight: float
) -> None:
    mine = ours(folder, f"{name}.safetensors:{weight}")
    with reference.with_loras({folder / f"{name}.safetensors": weight}):
        theirs = reference.picture(PROMPT, **SAMPLER, **THEIRS)  # type: ignore[arg-type]
    assert difference(mine, theirs)[0] <= 1
    assert difference(mine, plain)[0] > 8


def test_baked_into_the_model_it_gives_the_same_picture(folder: Path) -> None:
    lora = "text-encoder.safetensors:0.8"
    source = open_with_addons(folder / "model.safetensors", lora=str(folder / lora))
    convert(source, folder / "baked.safetensors", "ldm")
    assert difference(ours(folder, model="baked"), ours(folder, lora)) == (0, 0.0)
