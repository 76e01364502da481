"""What other tools say of a picture, as a line of a plan: their settings by our options' names. No torch.

Every setting is either read, or without effect on the pixels, or told as unmatched: nothing is dropped in
silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sdscratch.addons.requests import LoraRequest, take_loras
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.errors import UsageError
from sdscratch.images import ControlRecord, Infotext
from sdscratch.images.metadata.sampling_words import read_sampling
from sdscratch.jobs.finding import Wanted
from sdscratch.options import MAX_SEED, ResolvedOptions, parse_upscaler
from sdscratch.options.large import LATENT_UPSCALERS, PIXEL_UPSCALERS, hires_size

__all__ = ["TOOLS", "Told", "tagged", "told_by", "without_suffix"]

# What a tool's pictures are drawn like; and what of it no option matches.
TOOLS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "a1111": ({"like": "a1111"}, ""),
    "forge": ({"like": "forge"}, ""),
    "comfyui": ({"like": "comfyui"}, ""),
    "diffusers": ({"like": "diffusers"}, ""),
    "kohya": ({"like": "kohya"}, ""),
    "sdcpp": ({"like": "sdcpp"}, ""),
    "invokeai": (
        {"like": "diffusers", "prompt_syntax": "compel"},
        "InvokeAI: drawn as diffusers does, with compel's prompts",
    ),
    "novelai": (
        {"like": "a1111", "noise": "cpu"},
        "NovelAI: drawn as A1111 does, and its {} are no emphasis",
    ),
    "fooocus": (
        {"like": "comfyui", "prompt_syntax": "a1111"},
        "Fooocus: drawn as ComfyUI does, with A1111's prompts",
    ),
    "drawthings": ({"like": "a1111"}, "Draw Things: drawn as A1111 does"),
}

# Settings that change no pixel, or that stand in another one.
SILENT = {
    *(
        "Version",
        "Hashes",
        "Record hash",
        "Time taken",
        "Created Date",
        "Civitai resources",
        "score",
        "rating",
    ),
    *(
        "Civitai metadata",
        "source",
        "Template",
        "Negative Template",
        "Styles",
        "Wildcard prompt",
        "User",
        "date",
    ),
    *(
        "Model",
        "Model hash",
        "VAE",
        "VAE hash",
        "Lora hashes",
        "TI hashes",
        "TI",
        "Loras",
        "app_id",
        "created_by",
    ),
    *(
        "generation_mode",
        "rand_device",
        "metadata_scheme",
        "full_prompt",
        "full_negative_prompt",
        "Scheduler",
        "Hires upscaler",
        "Hires resize",
    ),
}
SAME = {  # values with which a setting does nothing
    "Schedule type": {"Automatic", "automatic"},
    "Emphasis": {"Original"},
    "RNG": {""},
    "VAE": {"Automatic", "None"},
    "Eta": {"1", "1.0"},
    "Pad conds": {"False"},
    "Face restoration": {"None"},
    "Tiling": {"False"},
    # how dynamic thresholding is done here
    "Separate Feature Channels": {"True"},
    "Scaling Startpoint": {"MEAN"},
    "Variability Measure": {"AD"},
    "Interpolate Phi": {"1"},
    "Hires resize": {"0x0"},
    "Hires sampler": {"Use same sampler"},
    "Hires schedule type": {"Use same scheduler", "Automatic"},
    "Hires checkpoint": {"Use same checkpoint"},
}
DECODERS = {"Full": "full", "TAESD": "tiny"}
RNG = {"cpu": "cpu", "gpu": "nv", "nv": "nv", "cuda": "nv"}
HASHED = re.compile(r"\s*([^\n]+?):\s*([0-9a-fA-F]{4,64})\s*(?:,|$)")
WEIGHED = re.compile(r"\s*([^\n]+?):\s*([+-]?[0-9.eE+-]+)\s*(?:,|$)")
SIZE = re.compile(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*")
HIRES = ("Hires upscale", "Hires resize", "Hires steps", "Hires upscaler", "First pass size")


@dataclass
class Told:
    """What is said of a picture, sorted.

    Attributes:
        values: fields of a line, without files.
        model, vae, taesd, upscaler, embeddings: the files that it names.
        upscales: the option that the upscaler is asked for by.
        loras: those that stand beside the prompt, not as tags in it.
        hashes: of the LoRAs that the prompt's tags may name, by name in lower case.
        controls: ControlNets and adapters, with their hints.
        init_hash: of the pixels that it was drawn from, where they are told.
        mask_hash: of the mask's pixels, where it came from a file.
        masked: a part of it was repainted, and `init_hash` counts its transparency.
        from_picture: it was drawn from a picture.
        exact: all options as they were resolved, where our own record tells them.
        unmatched: what there is no option for, in words.
    """

    values: dict[str, Any] = field(default_factory=dict)
    model: Wanted | None = None
    vae: Wanted | None = None
    taesd: Wanted | None = None
    upscaler: Wanted | None = None
    upscales: str = "hires_upscaler"
    embeddings: list[Wanted] = field(default_factory=list)
    loras: list[tuple[LoraRequest, Wanted]] = field(default_factory=list)
    hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    controls: list[ControlRecord] = field(default_factory=list)
    init_hash: str | None = None
    mask_hash: str | None = None
    masked: bool = False
    from_picture: bool = False
    exact: ResolvedOptions | None = None
    unmatched: list[str] = field(default_factory=list)


def told_by(tool: str, text: Infotext, like: str | None = None) -> Told:
    """What a tool says, as a line.

    Args:
        like: another tool to draw like than the one that says it.
    """
    conventions, note = TOOLS[tool]
    told = Told({"like": like} if like is not None else dict(conventions))
    if note and like is None:
        told.unmatched.append(note)
    told.values |= {"prompt": text.prompt, "negative_prompt": text.negative_prompt}
    convention = convention_of(told.values["like"])
    of_sampling = read_sampling(text.parameters)
    for key, value in text.parameters.items():
        if key in SILENT or value in SAME.get(key, ()):
            continue
        if key in of_sampling:
            told.values |= of_sampling[key]
            continue
        try:
            found = READ[key](value, convention.clip_skip_none) if key in READ else None
        except (ValueError, UsageError):
            found = None
        if found is None:
            told.unmatched.append(f"{key}: {value}")
        else:
            told.values |= found
    _second_pass(told, text.parameters)
    _name_files(told, text.parameters)
    return told


def _second_pass(told: Told, parameters: Mapping[str, str]) -> None:
    """The strength is a second pass's where there is one; else there was a picture to start from."""
    strength = told.values.pop("strength", None)
    resize = parameters.get("Hires resize", "")
    if resize not in ("", *SAME["Hires resize"]) and "hires" not in told.values:
        scale = _scale_of(resize, told.values.get("width"), told.values.get("height"))
        if scale is None:
            told.unmatched.append(f"Hires resize: {resize}")
        else:
            told.values["hires"] = scale
    if "hires" in told.values:
        if strength is not None:
            told.values["hires_strength"] = strength
        upscaler = parse_upscaler(parameters.get("Hires upscaler", "Latent"))
        if upscaler in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
            told.values["hires_upscaler"] = upscaler
        else:
            told.upscaler = Wanted("upscaler", without_suffix(upscaler))
        return
    for name in [name for name in told.values if name.startswith("hires_")]:
        told.unmatched.append(f"{name}: {told.values.pop(name)}, of a second pass of unknown size")
    told.from_picture = strength not in (None, 1.0) and not any(key in parameters for key in HIRES)
    if told.from_picture:
        told.values["strength"] = strength


def _scale_of(resize: str, width: int | None, height: int | None) -> float | None:
    """How many times as large a second pass is; None where it has other proportions, which are cropped.

    One side may be 0: it follows the other.
    """
    size = SIZE.fullmatch(resize)
    if size is None or not width or not height:
        return None
    wide, high = int(size[1]), int(size[2])
    wanted = wide or high * width // height, high or wide * height // width
    scale = max(wanted[0] / width, wanted[1] / height)
    for each in (scale, math.nextafter(scale, math.inf)):  # the quotient may be a rounding too small
        if each >= 1 and hires_size(width, height, each) == tuple(side // 8 * 8 for side in wanted):
            return each
    return None


def _name_files(told: Told, parameters: Mapping[str, str]) -> None:
    """Every file that is named, with all hashes that are said of it."""
    resources = _resources(parameters.get("Hashes", ""))
    model = without_suffix(parameters.get("Model", ""))
    if model or "Model hash" in parameters or "model" in resources:
        told.model = Wanted("model", model, _hashes(parameters.get("Model hash"), resources.get("model")))
    vae = parameters.get("VAE", "")
    if vae not in ("", *SAME["VAE"]):
        told.vae = Wanted(
            "vae", without_suffix(vae), _hashes(parameters.get("VAE hash"), resources.get("vae"))
        )
    for name, digits in HASHED.findall(parameters.get("TI hashes", "")):
        told.embeddings.append(Wanted("embedding", name, _hashes(digits, resources.get(f"embed:{name}"))))
    hashed = dict(HASHED.findall(parameters.get("Lora hashes", "")))
    names = [*hashed, *(key.removeprefix("lora:") for key in resources if key.startswith("lora:"))]
    for name in dict.fromkeys(names):
        told.hashes[name.casefold()] = _hashes(hashed.get(name), resources.get(f"lora:{name}"))
    for name, weight in WEIGHED.findall(parameters.get("Loras", "")):
        plain = without_suffix(name)
        request = LoraRequest(plain, float(weight))
        told.loras.append((request, Wanted("lora", plain, told.hashes.get(plain.casefold(), ()))))


def tagged(told: Told) -> Iterator[tuple[LoraRequest, Wanted]]:
    """The LoRAs that the prompt's tags ask for."""
    for request in take_loras(told.values["prompt"])[1]:
        name = without_suffix(request.name)
        yield request, Wanted("lora", name, told.hashes.get(request.name.casefold(), ()))


def without_suffix(name: str) -> str:
    """A file's name without folders, in either system's spelling, and without a model's suffix."""
    plain = PurePath(name.replace("\\", "/")).name
    return re.sub(r"\.(safetensors|ckpt|pt|bin|pth)$", "", plain, flags=re.IGNORECASE)


def _resources(text: str) -> dict[str, str]:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _hashes(*digits: str | None) -> tuple[str, ...]:
    """Those that are hex, without the 0x and the brackets that some write."""
    plain = (re.sub(r"^0x|[\[\]\s]", "", each).lower() for each in digits if each)
    return tuple(dict.fromkeys(each for each in plain if re.fullmatch("[0-9a-f]{8,64}", each)))


def _size(text: str) -> dict[str, Any]:
    match = SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return {"width": int(match[1]), "height": int(match[2])}


def _sampler(text: str) -> dict[str, Any]:
    sampler, scheduler = parse_sampler(text)
    return {"sampler": sampler} | ({"scheduler": scheduler} if scheduler else {})


def _clip_skip(text: str, none: int) -> dict[str, Any]:
    """Told in the web UIs' count, where 1 leaves out nothing; asked for as the tool drawn like counts."""
    skipped = max(int(text) - 1, 0)
    return {"clip_skip": skipped + none} if skipped else {}


def _seed(text: str) -> dict[str, Any]:
    if not 0 <= int(text) <= MAX_SEED:  # ComfyUI's go on to 2⁶⁴
        raise ValueError(text)
    return {"seed": int(text)}


def _plain(name: str, kind: Callable[[str], Any]) -> Callable[[str, int], dict[str, Any]]:
    return lambda text, _: {name: kind(text)}


READ: Mapping[str, Callable[[str, int], dict[str, Any]]] = {
    "Steps": _plain("steps", int),
    "Sampler": lambda text, _: _sampler(text),
    "Schedule type": _plain("scheduler", parse_scheduler),
    "CFG scale": _plain("cfg_scale", float),
    "Seed": lambda text, _: _seed(text),
    "Size": lambda text, _: _size(text),
    "Denoising strength": _plain("strength", float),
    "Clip skip": _clip_skip,
    "VAE Decoder": lambda text, _: {"decoder": DECODERS[text]} if text in DECODERS else _refuse(text),
    "RNG": lambda text, _: {"noise": RNG[text.lower()]} if text.lower() in RNG else _refuse(text),
    "Eta DDIM": _plain("eta", float),
    "Hires upscale": _plain("hires", float),
    "Hires steps": _plain("hires_steps", int),
    "Hires sampler": lambda text, _: {f"hires_{key}": value for key, value in _sampler(text).items()},
    "Hires schedule type": _plain("hires_scheduler", parse_scheduler),
    "Hires CFG Scale": _plain("hires_cfg_scale", float),
    "Hires prompt": _plain("hires_prompt", str),
    "Hires negative prompt": _plain("hires_negative_prompt", str),
    "Tiling": lambda text, _: {"seamless": "xy"} if text == "True" else _refuse(text),
    "Tiling axis": lambda text, _: {"seamless": text.lower()},
}


def _refuse(text: str) -> dict[str, Any]:
    raise ValueError(text)
