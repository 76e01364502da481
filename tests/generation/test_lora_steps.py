"""LoRAs that act at some steps only: each step is that of a model that has the step's LoRAs and no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdscratch import Pipeline, load
from sdscratch.addons.apply import at_step, open_with_addons
from sdscratch.checkpoints.network_file import PartFile
from sdscratch.device import choose
from sdscratch.diffusion.conventions import sampler_parameters
from sdscratch.diffusion.noise import noise_sources
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.errors import UsageError
from sdscratch.generation import networks as module
from sdscratch.generation.networks import Networks, exchanged
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import GenerateOptions
from support.checkpoints import ldm_tensors, self_contained, write_ldm
from support.diffusion import relative_error
from support.loras import changes, is_attention, targets, write_lora
from support.reference import difference

ASKED = {"width": 64, "height": 64, "steps": 4, "seed": 3, "cfg_scale": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    write_ldm(folder / "model.safetensors", ldm_tensors(), self_contained())
    chosen = [weight for weight in targets() if is_attention(weight)]
    for seed, name in enumerate(("ink", "oil")):
        write_lora(folder / f"{name}.safetensors", changes(chosen, rank=2, seed=seed, size=0.6))
    return folder


def drawing(folder: Path, *loras: str) -> Pipeline:
    given = [str(folder / lora) for lora in loras]
    return load(str(folder / "model.safetensors"), device="cpu", dtype="float32", lora=given)


def by_hand(folder: Path, loras: Sequence[str], sampler: str, steps_of: Sequence[int]) -> Tensor:
    """The last latent of a loop whose k-th evaluation is by the model as it is at step `steps_of[k]`."""
    pipeline = drawing(folder, *loras)
    options = pipeline.resolve(GenerateOptions("a dog", sampler=sampler, **ASKED))
    path = pipeline.path(options)
    prompt, negative = pipeline.encode_prompts.of(options)
    told = [part[0].at(0) for part in (negative, prompt)]
    unets: dict[Any, nn.Module] = {}
    numbers = iter(steps_of)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        files = at_step(pipeline.files, next(numbers))
        key = tuple(change.request.name for change in files.changes)  # type: ignore[attr-defined]
        if key not in unets:
            unets[key] = files.load("unet", "cpu", torch.float32)
        shown = torch.cat([x, x]) / (1 + sigma**2) ** 0.5
        timesteps = torch.full((2,), path.timestep(sigma))
        with torch.inference_mode():
            without, with_prompt = unets[key](shown, timesteps, Conditioning.stack(told)).chunk(2)
        return x - sigma * (without + options.cfg_scale * (with_prompt - without))

    start, noise = noise_sources(sampler, path.sigmas, [options.seed], (4, 8, 8))
    x = start() * path.start_scale
    *_, last = SAMPLERS[sampler](denoise, x, path.sigmas, noise, **sampler_parameters("sdscratch", sampler))
    assert next(numbers, None) is None
    return last.latent * path.end_scale


TWO = ("ink.safetensors:0.8:start=1:stop=3", "oil.safetensors:-0.7:start=2")


@pytest.mark.parametrize(
    ("sampler", "steps_of"),
    [
        ("euler_a", [0, 1, 2, 3]),
        ("unipc", [0, 1, 2, 3]),  # which asks at the next step's beginning before a step ends
        ("heun", [0, 0, 1, 1, 2, 2, 3]),
    ],
)
def test_a_sampling_is_a_loop_over_models_of_their_steps(
    folder: Path, sampler: str, steps_of: list[int]
) -> None:
    pipeline = drawing(folder, *TWO)
    options = pipeline.resolve(GenerateOptions("a dog", sampler=sampler, **ASKED))
    *_, last = pipeline.steps(options)
    assert relative_error(last.latent, by_hand(folder, TWO, sampler, steps_of)) <= 1e-5
    if sampler == "euler_a":
        *_, again = pipeline.steps(options)  # which begins with the weights of the first step
        assert torch.equal(again.latent, last.latent)


def test_outside_its_steps_it_is_not_there_and_within_all_it_is_whole(folder: Path) -> None:
    whole = drawing(folder, "ink.safetensors:0.8").txt2img("a dog", **ASKED)
    for items, same in (("start=0:stop=4", True), ("start=2", False)):
        drawn = drawing(folder, f"ink.safetensors:0.8:{items}").txt2img("a dog", **ASKED)
        assert (difference(drawn, whole)[0] == 0) is same
    # the prompt is encoded with it: where only the U-Net would have it, never is as without
    never = drawing(folder, "ink.safetensors:0:1:start=4").txt2img("a dog", **ASKED)
    assert difference(never, drawing(folder).txt2img("a dog", **ASKED)) == (0, 0.0)


def test_tags_have_steps_too_and_batches_are_their_pictures(folder: Path) -> None:
    pipeline = drawing(folder)
    prompt = f"a dog<lora:{folder / 'ink.safetensors'}:0.8:step=1-3>"
    drawn = pipeline.txt2img(prompt, batch_count=2, batch_size=2, **ASKED)
    plain = pipeline.txt2img("a dog", **ASKED)
    asked = drawing(folder, "ink.safetensors:0.8:start=1:stop=3")
    for index, picture in enumerate(drawn):
        alone = asked.txt2img("a dog", **ASKED | {"seed": 3 + index})
        assert difference(picture, alone) == (0, 0.0)
    assert difference(plain, drawing(folder).txt2img("a dog", **ASKED)) == (0, 0.0)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every network that is loaded, and how many of its kind are in memory then."""
    alive: list[tuple[str, int]] = []
    real = Networks._load

    def load(self: Networks, name: str) -> None:
        real(self, name)
        alive.append((name, sum(kept == name for kept in self.sizes)))

    monkeypatch.setattr(module.Networks, "_load", load)
    return alive


def test_one_u_net_at_a_time_and_only_where_something_changes(
    folder: Path, loaded: list[tuple[str, int]]
) -> None:
    pipeline = drawing(folder, "ink.safetensors:0.8:start=1:stop=3")
    pipeline.txt2img("a dog", **ASKED)
    assert [name for name, _ in loaded if name == "unet"] == ["unet"] * 3  # without, with, without
    pipeline.txt2img("a dog", **ASKED)
    assert len([name for name, _ in loaded if name == "unet"]) == 5  # it begins as it ended


@pytest.mark.parametrize("by", ["option", "tag"])
def test_a_sampler_that_chooses_its_steps_is_refused_before_anything_is_loaded(
    folder: Path, by: str, loaded: list[tuple[str, int]]
) -> None:
    lora = f"{folder / 'ink.safetensors'}:1:stop=2"
    pipeline = drawing(folder, *(["ink.safetensors:1:stop=2"] if by == "option" else []))
    prompt = f"a dog<lora:{lora}>" if by == "tag" else "a dog"
    with pytest.raises(UsageError, match="ink has start= or stop=, but dpm_adaptive chooses its steps"):
        pipeline.txt2img(prompt, sampler="dpm_adaptive", **ASKED)
    assert loaded == []


def test_weights_are_put_in_their_places_where_they_are_still_the_network_s_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose recordings read the very memory: here the device is only said to be another."""
    files = open_with_addons(folder / "model.safetensors", lora=str(folder / "ink.safetensors:0.8"))
    plain = open_with_addons(folder / "model.safetensors")
    (lora,) = files.changes
    touched = [weight for weight in lora.lora.modules if weight.part == "unet"]  # type: ignore[attr-defined]
    unet = plain.load("unet", "cpu", torch.float32)
    places = {name: weight.data_ptr() for name, weight in unet.named_parameters()}
    assert not exchanged(unet, files, touched)  # on a CPU they may lie in other forms
    monkeypatch.setattr(module, "LAID_OUT_ANEW", ())
    assert exchanged(unet, files, touched)
    expected = files.load("unet", "cpu", torch.float32).state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in unet.state_dict().items())
    assert {name: weight.data_ptr() for name, weight in unet.named_parameters()} == places


def test_networks_that_vary_keep_their_precision(folder: Path) -> None:
    files = open_with_addons(folder / "model.safetensors", lora=str(folder / "ink.safetensors:0.8:start=1"))
    networks = Networks(files, choose("cpu", "bfloat16"))
    networks.fall_back(networks.not_finite("unet"))
    networks.vary("unet", PartFile(at_step(files, 0), "unet"), [])
    networks.vary("unet", None, [w for w in files.stored if w.part == "unet"])
    assert next(networks["unet"].parameters()).dtype == torch.float32
