"""InvokeAI in all its ages: `Dream` (1.x), `sd-metadata` (2.x), `invokeai_metadata` (since 3.0)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import a_list, an_object, json_object, named, said, size_of

__all__ = ["read"]

NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Sampler",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "strength": "Denoising strength",
    "app_version": "Version",
}
SWITCHES = {"s": "Steps", "A": "Sampler", "C": "CFG scale", "S": "Seed", "W": "width", "H": "height"}
BRACKETS = re.compile(r"\[([^\[\]]*)\]")  # until 3.0 what stands in them is negative
MODEL_NAMES = ("model_name", "name")
MODEL = {"model_hash": "Model hash", "model_weights": "Model", "app_version": "Version"}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What InvokeAI says; the newest of its ages where several stand side by side."""
    for key, reader in READERS.items():
        text = texts.png.get(key)
        told = reader(text) if text is not None else None
        if told is not None:
            return "invokeai", told
    if "invokeai_graph" in texts.png or "invokeai_workflow" in texts.png:
        return "invokeai", Infotext("", "", {})
    return None


def _metadata(text: str) -> Infotext | None:
    """Since 3.0: flat JSON; models as objects with name and hash."""
    values = json_object(text)
    if values is None:
        return None
    model = an_object(values.get("model"))
    loras = [_lora(an_object(each)) for each in a_list(values.get("loras"))]
    dropped = {"positive_prompt", "negative_prompt", "width", "height", "model", "loras", "clip_skip"}
    skip = values.get("clip_skip")
    parameters = {
        **named({key: values[key] for key in NAMES if key in values}, NAMES),
        **size_of(values),
        **named({"Model hash": model.get("hash"), "Model": _first(model, MODEL_NAMES)}, {}),
        **({"Clip skip": str(skip + 1)} if isinstance(skip, int) and skip else {}),
        **({"Loras": ", ".join(loras)} if loras else {}),
        **named(values, {}, drop=dropped | NAMES.keys()),
    }
    return Infotext(said(values.get("positive_prompt")), said(values.get("negative_prompt")), parameters)


def _lora(values: Mapping[str, Any]) -> str:
    model = an_object(values.get("lora") or values.get("model"))
    return f"{said(_first(model, MODEL_NAMES))}: {said(values.get('weight', 1))}"


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((values[key] for key in keys if key in values), None)


def _sd_metadata(text: str) -> Infotext | None:
    """2.x: the picture under `image`, its prompt in weighted parts."""
    values = json_object(text)
    if values is None:
        return None
    image = an_object(values.get("image"))
    parts = image.get("prompt")
    words = (
        [said(an_object(part).get("prompt")) for part in parts] if isinstance(parts, list) else [said(parts)]
    )
    prompt, negative = _bracketed(" ".join(words))
    parameters = {
        **named({key: image[key] for key in NAMES if key in image}, NAMES),
        **size_of(image),
        **named(
            values,
            {"model_hash": "Model hash", "model_weights": "Model", "app_version": "Version"},
            drop=["image"],
        ),
        **named(image, {}, drop={"prompt", "width", "height"} | NAMES.keys()),
    }
    return Infotext(prompt, negative, parameters)


def _dream(text: str) -> Infotext | None:
    """1.x: the command that was typed, `"a fox [blurry]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms`."""
    match = re.match(r'\s*"((?:\\.|[^"\\])*)"(.*)', text, re.DOTALL)
    prompt, rest = (match[1].replace('\\"', '"'), match[2]) if match else (text.split(" -")[0], text)
    options = dict(re.findall(r"(?:^|\s)-(?!-)([A-Za-z])\s*([^\s-]\S*|-\d\S*)", rest))
    for switch, value in re.findall(r"(?:^|\s)--(\w+)(?:[= ]+([^\s-]\S*))?", rest):
        options[switch] = value or "True"
    size = size_of({"width": options.pop("W", ""), "height": options.pop("H", "")})
    prompt, negative = _bracketed(prompt)
    names = {key: name for key, name in SWITCHES.items() if key not in "WH"} | {"f": "Denoising strength"}
    known = named({key: options[key] for key in names if key in options}, names)
    return Infotext(prompt, negative, known | size | named(options, {}, drop=names.keys()))


def _bracketed(prompt: str) -> tuple[str, str]:
    """The prompt without its brackets, and what stood in them."""
    negative = ", ".join(part.strip() for part in BRACKETS.findall(prompt))
    return " ".join(BRACKETS.sub(" ", prompt).split(" ")).strip(), negative


READERS = {"invokeai_metadata": _metadata, "sd-metadata": _sd_metadata, "Dream": _dream}
