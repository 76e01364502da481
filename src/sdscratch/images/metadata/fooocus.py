"""Fooocus: JSON under PNG's `parameters` or in EXIF's UserComment; its scheme is named beside it.

With the scheme `a1111` it writes an infotext, with `Version: Fooocus v2…` in it. RuinedFooocus writes JSON in
words of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sdscratch.images.metadata.infotext import Infotext, parse_infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import json_object, named, said, size_of
from sdscratch.images.metadata.webui import web_uis_text

__all__ = ["read"]

NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "sampler_name": "Sampler",
    "scheduler": "Schedule type",
    "guidance_scale": "CFG scale",
    "cfg": "CFG scale",
    "seed": "Seed",
    "base_model_hash": "Model hash",
    "base_model": "Model",
    "base_model_name": "Model",
    "clip_skip": "Clip skip",
    "vae": "VAE",
    "version": "Version",
}
PROMPTS = {"prompt", "negative_prompt", "Prompt", "Negative", "resolution", "width", "height"}
TELLING = {"metadata_scheme", "base_model", "full_prompt", "performance", "adm_guidance"}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What Fooocus says, in either scheme."""
    scheme = texts.png.get("fooocus_scheme")
    by_name = scheme is not None or texts.exif.get("Software", "").startswith("Fooocus")
    for text in (texts.png.get("parameters"), texts.exif.get("UserComment"), texts.png.get("Comment")):
        values = json_object(text)
        if values is not None and (by_name or _is_fooocus(values)):
            return "fooocus", _told(values)
    text = web_uis_text(texts)
    told = parse_infotext(text) if text is not None else None
    if told is not None and (by_name or told.parameters.get("Version", "").startswith("Fooocus")):
        return "fooocus", told
    return None


def _is_fooocus(values: Mapping[str, Any]) -> bool:
    ruined = "Fooocus" in said(values.get("software"))
    return ruined or ("prompt" in values and len(TELLING & values.keys()) >= 2)


def _told(values: Mapping[str, Any]) -> Infotext:
    size = re.fullmatch(r"\D*(\d+)\D+(\d+)\D*", said(values.get("resolution")))
    parameters = {
        **named({key: values[key] for key in NAMES if key in values}, NAMES),
        **({"Size": f"{size[1]}x{size[2]}"} if size else size_of(values)),
        **named(values, {}, drop=PROMPTS | NAMES.keys()),
    }
    prompt, negative = (
        said(values.get(key, values.get(other, "")))
        for key, other in (("prompt", "Prompt"), ("negative_prompt", "Negative"))
    )
    return Infotext(prompt, negative, parameters)
