"""Programs that stand on diffusers and speak its words: dgenerate, Easy Diffusion (sdkit), and the like.

dgenerate keeps a whole command line under PNG's `DgenerateConfig` (in JPEG and WebP in the UserComment); the
others keep diffusers' arguments, as PNG texts or as JSON.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import json_object, named, said, size_of

__all__ = ["read"]

NAMES = {
    "num_inference_steps": "Steps",
    "inference_steps": "Steps",
    "sampler_name": "Sampler",
    "sampler": "Sampler",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "guidance_scales": "CFG scale",
    "seed": "Seed",
    "seeds": "Seed",
    "output_size": "Size",
    "use_stable_diffusion_model": "Model",
    "model": "Model",
    "model_path": "Model",
    "strength": "Denoising strength",
    "prompt_strength": "Denoising strength",
    "image_seed_strengths": "Denoising strength",
}
TELLING = {"num_inference_steps", "guidance_scale"}
PROMPTS = {"prompt", "negative_prompt", "prompts", "width", "height"}
DGENERATE = re.compile(r"#!\s*(/usr/bin/env )?dgenerate")
SPLIT = ";"  # dgenerate's sign between a prompt and a negative prompt


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What a program on diffusers says."""
    for config in (texts.png.get("DgenerateConfig"), texts.exif.get("UserComment")):
        if config and (config is texts.png.get("DgenerateConfig") or DGENERATE.match(config.lstrip())):
            return "diffusers", _dgenerate(config)
    candidates = (texts.png.get("parameters"), texts.png.get("Comment"), texts.exif.get("UserComment"))
    objects: list[Mapping[str, Any] | None] = [texts.png, *map(json_object, candidates)]
    for values in objects:
        if values is not None and "prompt" in values and TELLING & values.keys():
            known = {key: values[key] for key in NAMES if key in values}
            rest = named(values, {}, drop=PROMPTS | NAMES.keys() | {"parameters", "Comment"})
            parameters = named(known, NAMES) | size_of(values) | rest
            return "diffusers", Infotext(
                said(values["prompt"]), said(values.get("negative_prompt")), parameters
            )
    return None


def _dgenerate(config: str) -> Infotext:
    """The command in a config: a model, options, and their values; `\\` at a line's end goes on below."""
    lines = [
        line
        for line in config.replace("\\\n", " ").splitlines()
        if line.strip() and line.strip()[0] not in "#\\"
    ]
    try:
        words = shlex.split(" ".join(lines))
    except ValueError:
        words = " ".join(lines).split()
    options: dict[str, str] = {}
    model = words.pop(0) if words and not words[0].startswith("-") else ""
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word.removeprefix("--").replace("-", "_")
            options[option] = ""
        elif option:
            options[option] = f"{options[option]} {word}".lstrip()
    prompt, _, negative = options.get("prompts", "").partition(SPLIT)
    parameters = named({**({"model": model} if model else {}), **options}, NAMES, drop=PROMPTS)
    return Infotext(prompt.strip(), negative.strip(), parameters)
