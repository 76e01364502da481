"""Pictures that controls steer are diffusers', to one level of 255: alone and together, in any range."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdscratch import Pipeline, load
from sdscratch.addons.control import open_controls
from sdscratch.addons.control_requests import ControlRequest
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.generation.controls import acts
from support.checkpoints import TINY, ldm_tensors, tiny_tokenizer, write_ldm
from support.controlnets import (
    TINY_ADAPTER,
    TINY_CONTROL,
    TINY_LIGHT,
    adapter_of_diffusers,
    control_tensors,
    controlnet_of_diffusers,
    hint,
    weights_of,
    write_control,
)
from support.diffusion import reference_scheduler
from support.reference import Reference, difference, sketch

PROMPT = "the red apple on the dog"
NAMES = {"one": TINY_CONTROL, "two": TINY_CONTROL, "shuffled": replace(TINY_CONTROL, pooled=True)}
SEEDS = {"one": 0, "two": 1, "shuffled": 2}
ADAPTERS = {"full": TINY_ADAPTER, "light": TINY_LIGHT, "grey": replace(TINY_ADAPTER, hint_channels=1)}


@dataclass(frozen=True)
class Models:
    """Ours and diffusers', of the same files."""

    ours: Pipeline
    theirs: Reference
    folder: Path

    def request(self, name: str, **about: Any) -> ControlRequest:
        return ControlRequest(str(self.folder / name), hint(seed=SEEDS.get(name, 0)), **about)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("controls")
    file = write_ldm(folder / "tiny.safetensors", ldm_tensors(), {"sdscratch.config": TINY.to_json()})
    tokenizer = tiny_tokenizer()
    reference = Reference(file, TINY, tokenizer, tmp_path_factory.mktemp("configs"))
    (folder / "tokenizer").mkdir()
    for name, text in tokenizer.to_files().items():
        (folder / "tokenizer" / name).write_text(text)
    for name, config in NAMES.items():
        write_control(folder / name, config, SEEDS[name], layout="folder")
    for name, adapter in ADAPTERS.items():
        write_control(folder / f"{name}.safetensors", adapter, layout="ldm", prefix=False)
    pipeline = load(str(file), device="cpu", dtype="float32", tokenizer=str(folder / "tokenizer"))
    return Models(pipeline, reference, folder)


def of_diffusers(models: Models, names: list[str], init: Image.Image | None, **options: Any) -> Image.Image:
    """A picture by the ControlNets of these names."""
    import diffusers

    kind = "StableDiffusionControlNetPipeline" if init is None else "StableDiffusionControlNetImg2ImgPipeline"
    nets = [controlnet_of_diffusers(NAMES[name], SEEDS[name]) for name in names]
    hints = [hint(seed=SEEDS[name]) for name in names]
    given = {"image": hints if len(nets) > 1 else hints[0]}
    if init is not None:
        given = {"image": init, "control_image": given["image"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        pipeline = getattr(diffusers, kind)(
            **models.theirs.text.components, controlnet=nets if len(nets) > 1 else nets[0]
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = reference_scheduler(options.pop("sampler"))
        size = {"width": 64, "height": 72}
        generator = torch.Generator("cpu").manual_seed(options.pop("seed"))
        result = pipeline(PROMPT, generator=generator, **given, **size, **options)
    picture: Image.Image = result.images[0]
    return picture


@dataclass(frozen=True)
class Case:
    """What is asked of both."""

    names: tuple[str, ...] = ("one",)
    weights: tuple[float, ...] = (1.0,)
    ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    sampler: str = "euler"
    scale: float = 7.5
    strength: float | None = None
    guess: bool = False
    steps: int = 5

    def __str__(self) -> str:
        start = "" if self.strength is None else f" strength {self.strength}"
        guess = " guess mode" if self.guess else ""
        where = f"{self.weights} {self.ranges}"
        return f"{'+'.join(self.names)} {where} {self.sampler} scale {self.scale}{start}{guess}"


CASES = [
    Case(),
    Case(sampler="ddim", weights=(0.6,), scale=1.0),
    Case(sampler="dpm++2m", ranges=((0.2, 0.7),)),
    Case(sampler="heun", ranges=((0.25, 0.8),), steps=4),
    Case(("one", "two"), (0.8, -0.5), ((0.0, 0.6), (0.4, 1.0)), sampler="euler_a"),
    Case(strength=0.6, weights=(1.3,), ranges=((0.0, 0.5),), steps=7),
    Case(guess=True),
    Case(guess=True, scale=1.0, weights=(0.7,)),
    Case(("shuffled",)),
    Case(("shuffled",), guess=True, scale=1.0),
]


def both(case: Case, models: Models) -> tuple[Image.Image, Image.Image]:
    """Ours and diffusers'."""
    init = None if case.strength is None else sketch(64, 72)
    strength = {} if case.strength is None else {"strength": case.strength}
    guessing: dict[str, Any] = {"mode": "control"} if case.guess else {}
    controls = [
        models.request(name, weight=weight, start=start, end=end, **guessing)
        for name, weight, (start, end) in zip(case.names, case.weights, case.ranges, strict=True)
    ]
    asked = {
        "sampler": case.sampler, "steps": case.steps, "cfg_scale": case.scale, "seed": 3, "control": controls,
        **strength, **({"like": "diffusers"} if case.guess else {}),
    }  # fmt: skip
    if init is None:
        ours = models.ours.txt2img(PROMPT, width=64, height=72, **asked)
    else:
        ours = models.ours.img2img(init, PROMPT, **asked)
    several = len(case.names) > 1

    def each(values: tuple[Any, ...]) -> Any:
        return list(values) if several else values[0]

    theirs = of_diffusers(
        models,
        list(case.names),
        init,
        sampler=case.sampler,
        seed=3,
        num_inference_steps=case.steps,
        guidance_scale=case.scale,
        controlnet_conditioning_scale=each(case.weights),
        control_guidance_start=each(tuple(start for start, _ in case.ranges)),
        control_guidance_end=each(tuple(end for _, end in case.ranges)),
        guess_mode=case.guess,
        **strength,
    )
    return ours, theirs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_controlled_picture_is_the_references(case: Case, models: Models) -> None:
    greatest, mean = difference(*both(case, models))
    assert greatest <= 1, f"{greatest} levels apart"
    assert mean <= 0.01


@pytest.mark.parametrize(
    ("sampler", "strength", "weight", "span", "scale"),
    [("ddim", 1.0, 1.5, (0.0, 1.0), 7.5), ("euler", 0.7, 0.8, (0.0, 0.6), 1.0)],
)
def test_a_control_under_inpainting_is_the_references(
    sampler: str, strength: float, weight: float, span: tuple[float, float], scale: float, models: Models
) -> None:
    import diffusers

    init, mask = sketch(64, 72), Image.new("L", (64, 72))
    mask.paste(255, (20, 16, 60, 60))
    control = models.request("one", weight=weight, start=span[0], end=span[1])
    mine = models.ours.img2img(
        init, PROMPT, mask=mask, like="diffusers", sampler=sampler, steps=5, cfg_scale=scale, seed=3,
        strength=strength, mask_blur=0, paste=False, control=[control],
    )  # fmt: skip
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        pipeline = diffusers.StableDiffusionControlNetInpaintPipeline(
            **models.theirs.text.components, controlnet=controlnet_of_diffusers(NAMES["one"], SEEDS["one"])
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = reference_scheduler(sampler)
        result = pipeline(
            PROMPT,
            image=init,
            mask_image=mask,
            control_image=hint(),
            generator=torch.Generator("cpu").manual_seed(3),
            width=64,
            height=72,
            num_inference_steps=5,
            guidance_scale=scale,
            strength=strength,
            controlnet_conditioning_scale=weight,
            control_guidance_start=span[0],
            control_guidance_end=span[1],
        )
    greatest, mean = difference(mine, result.images[0])
    assert greatest <= 1, f"{greatest} levels apart"
    assert mean <= 0.01


def ours(models: Models, *controls: ControlRequest, **options: Any) -> Image.Image:
    asked = {"sampler": "euler", "steps": 4, "seed": 3, "width": 64, "height": 72} | options
    return models.ours.txt2img(PROMPT, control=controls, **asked)


def test_a_controlled_picture_moves_with_all_that_is_asked(models: Models) -> None:
    told = models.request("one", weight=4.0)  # a random network is a weak one
    first = ours(models, told)
    others = [
        ours(models),
        ours(models, replace(told, weight=0.5)),
        ours(models, replace(told, end=0.5)),
        ours(models, replace(told, mode="prompt")),
        ours(models, replace(told, mode="control")),
        ours(models, replace(told, mode="control"), like="diffusers", prompt_syntax="a1111"),
        ours(models, replace(told, preprocess="invert")),
        ours(models, replace(told, image=hint(seed=5))),
        ours(models, models.request("two")),
        ours(models, told, models.request("two")),
    ]
    pictures = [first, *others]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert difference(one, other)[0] > 0
    assert difference(first, ours(models, told))[0] == 0
    assert difference(others[0], ours(models, replace(told, weight=0.0)))[0] == 0


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_an_adapters_picture_is_the_references(name: str, scale: float, models: Models) -> None:
    import diffusers

    weight = 0.8
    mine = ours(models, models.request(f"{name}.safetensors", weight=weight), cfg_scale=scale)
    picture = hint()
    if name == "grey":
        picture = Image.merge("RGB", [hint().convert("L")] * 3)
        asked = replace(models.request(f"{name}.safetensors", weight=weight), image=picture)
        mine = ours(models, asked, cfg_scale=scale)
    components = {k: v for k, v in models.theirs.text.components.items() if k != "image_encoder"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        pipeline = diffusers.StableDiffusionAdapterPipeline(
            **components, adapter=adapter_of_diffusers(ADAPTERS[name])
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = reference_scheduler("euler")
        result = pipeline(
            PROMPT,
            picture.convert("L") if name == "grey" else picture,
            generator=torch.Generator("cpu").manual_seed(3),
            width=64,
            height=72,
            num_inference_steps=4,
            guidance_scale=scale,
            adapter_conditioning_scale=weight,
        )
    assert difference(mine, result.images[0])[0] <= 1
    assert difference(ours(models, cfg_scale=scale), result.images[0])[0] > 1


# --- Files -----------------------------------------------------------------------------------------------


def as_ldm(folder: Path) -> Path:
    return write_control(folder / "ldm.safetensors", TINY_CONTROL)


def bare(folder: Path) -> Path:
    return write_control(folder / "bare.safetensors", TINY_CONTROL, prefix=False)


def diffusers_file(folder: Path) -> Path:
    return write_control(folder / "file.safetensors", TINY_CONTROL, layout="file")


def pickled(folder: Path) -> Path:
    tensors = {weight.ldm: tensor for weight, tensor in control_tensors(weights_of(TINY_CONTROL)).items()}
    shaped = {w.ldm: tensors[w.ldm].reshape(w.ldm_shape) for w in weights_of(TINY_CONTROL)}
    torch.save({"state_dict": shaped}, folder / "old.pth")
    return folder / "old.pth"


def with_the_model(folder: Path) -> Path:
    own = {w.ldm: t.reshape(w.ldm_shape) for w, t in control_tensors(weights_of(TINY_CONTROL)).items()}
    save_file(ldm_tensors() | own, folder / "whole.safetensors")
    return folder / "whole.safetensors"


def difference_from_the_model(folder: Path) -> Path:
    """What the U-Net has as well is stored less the model's own."""
    model = ldm_tensors()
    own = {}
    for weight, tensor in control_tensors(weights_of(TINY_CONTROL)).items():
        base = model.get(weight.ldm.replace("control_model.", "model.diffusion_model.", 1))
        stored = tensor.reshape(weight.ldm_shape)
        own[weight.ldm] = stored if base is None else stored - base
    save_file({**own, "difference": torch.ones(1)}, folder / "difference.safetensors")
    return folder / "difference.safetensors"


FORMS: list[Callable[[Path], Path]] = [
    as_ldm, bare, diffusers_file, pickled, with_the_model, difference_from_the_model
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_of_file_steers_alike(
    form: Callable[[Path], Path], models: Models, tmp_path: Path
) -> None:
    told = models.request("one")
    again = ours(models, replace(told, name=str(form(tmp_path))))
    assert difference(ours(models, told), again)[0] <= 1


def test_a_control_lora_is_the_model_with_products_and_whole_tensors(models: Models, tmp_path: Path) -> None:
    model = ldm_tensors()
    generator = torch.Generator().manual_seed(7)
    lora, whole = {"lora_controlnet": torch.ones(1)}, {}
    for weight, tensor in control_tensors(weights_of(TINY_CONTROL)).items():
        name = weight.ldm.removeprefix("control_model.")
        base = model.get(f"model.diffusion_model.{name}")
        stored = tensor.reshape(weight.ldm_shape)
        if base is None or "norm" in weight.name:
            lora[name] = whole[weight.ldm] = stored
        elif len(base.shape) > 1 and "time" not in weight.name:
            up = torch.randn(base.shape[0], 2, *(1,) * (base.dim() - 2), generator=generator)
            down = torch.randn(2, *base.shape[1:], generator=generator) * 0.02
            lora[name.replace(".weight", ".up")], lora[name.replace(".weight", ".down")] = up, down
            whole[weight.ldm] = base + (up.flatten(1) @ down.flatten(1)).reshape(base.shape)
        else:
            whole[weight.ldm] = base
    save_file(lora, tmp_path / "lora.safetensors")
    save_file(whole, tmp_path / "whole.safetensors")
    told = models.request("one")
    wanted = ours(models, replace(told, name=str(tmp_path / "whole.safetensors")))
    assert difference(wanted, ours(models, replace(told, name=str(tmp_path / "lora.safetensors"))))[0] <= 1
    assert difference(wanted, ours(models))[0] > 1


def damaged(kind: str, folder: Path) -> Path:
    tensors = {w: t.clone() for w, t in control_tensors(weights_of(TINY_CONTROL)).items()}
    named = {weight.ldm: tensor.reshape(weight.ldm_shape) for weight, tensor in tensors.items()}
    key = next(name for name in named if name.endswith("attn2.to_k.weight"))
    match kind:
        case "sd2":
            named[key] = torch.zeros(16, 1024)
        case "sdxl":
            named[key] = torch.zeros(16, 2048)
        case "incomplete":
            del named[key]
        case "more":
            named["control_model.task_embedding"] = torch.zeros(3)
        case "larger":
            named["control_model.input_blocks.0.0.weight"] = torch.zeros(32, 4, 3, 3)
        case "lora":
            named = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 16)}
    save_file(named, folder / f"{kind}.safetensors")
    return folder / f"{kind}.safetensors"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("sd2", "ControlNet for Stable Diffusion 2.x"),
        ("sdxl", "ControlNet for SDXL"),
        ("incomplete", "no whole ControlNet: it lacks control_model.input_blocks.1.1"),
        ("more", "task_embedding, which a ControlNet"),
        ("larger", "for another kind of model"),
        ("lora", "is a LoRA in kohya's layout"),
    ],
)
def test_other_files_are_refused_by_name(kind: str, says: str, models: Models, tmp_path: Path) -> None:
    told = replace(models.request("one"), name=str(damaged(kind, tmp_path)))
    with pytest.raises(CheckpointError, match=says):
        ours(models, told)


# --- Cost ------------------------------------------------------------------------------------------------


def test_hints_are_encoded_once_and_steps_outside_the_range_cost_nothing(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdscratch.models import controlnet

    rows: list[int] = []
    hints: list[int] = []
    forward, encode = controlnet.ControlNet.forward, controlnet.ControlNet.encode_hint
    monkeypatch.setattr(
        controlnet.ControlNet,
        "forward",
        lambda self, x, *others: (rows.append(len(x)), forward(self, x, *others))[1],
    )
    monkeypatch.setattr(
        controlnet.ControlNet,
        "encode_hint",
        lambda self, hint: (hints.append(len(hint)), encode(self, hint))[1],
    )
    told = replace(models.request("two"), image=hint(seed=11))
    (opened,) = open_controls(told, models.ours.files)
    options = models.ours.resolve(options_of(steps=4))
    for seed in (1, 2):
        list(models.ours.steps(options, seeds=[seed], controls=[opened]))
    assert (len(hints), rows) == (1, [2] * 8)
    for change, wanted in (({"end": 0.5}, [2, 2]), ({"mode": "control"}, [1] * 4), ({"weight": 0.0}, [])):
        rows.clear()
        other = replace(opened, request=replace(told, **change))
        list(models.ours.steps(options, seeds=[1], controls=[other]))
        assert rows == wanted


def options_of(**asked: Any) -> Any:
    from sdscratch.options import GenerateOptions

    return GenerateOptions(PROMPT, sampler="euler", width=64, height=64, seed=1, **asked)


def test_a_range_counts_as_each_tool_counts() -> None:
    def at(counted: str, start: float, end: float) -> Iterator[bool]:
        return (acts(start, end, i, 4, 999 * (1 - i / 4), counted) for i in range(4))

    assert list(at("diffusers", 0.25, 0.7)) == [False, True, False, False]
    assert list(at("webui", 0.25, 0.5)) == [False, True, True, False]
    assert list(at("comfyui", 0.2, 0.5)) == [False, True, True, False]


def test_a_sampler_that_chooses_its_steps_goes_with_no_range(models: Models) -> None:
    with pytest.raises(UsageError, match="decides on its steps"):
        ours(models, replace(models.request("one"), end=0.5), sampler="dpm_adaptive")
