"""NovelAI: PNG's Description, Source and Comment (JSON), and the same hidden in the alpha channel."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import an_object, json_object, named, said, size_of

__all__ = ["read"]

NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "noise_schedule": "Schedule type",
    "scale": "CFG scale",
    "seed": "Seed",
    "strength": "Denoising strength",
}
PROMPTS = {"prompt", "uc", "v4_prompt", "v4_negative_prompt", "width", "height"}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What NovelAI says; where its texts were lost on the way, what it hid in the pixels."""
    hidden = json_object(texts.hidden) or {}
    for source in (texts.png, texts.exif, {name: said(value) for name, value in hidden.items()}):
        comment = json_object(source.get("Comment") or source.get("UserComment"))
        if comment is not None and _is_novelai(source, comment):
            return "novelai", _told(source, comment)
    return None


def _is_novelai(source: Mapping[str, str], comment: Mapping[str, object]) -> bool:
    by_name = any("NovelAI" in source.get(name, "") for name in ("Software", "Title", "Source"))
    return by_name or {"uc", "sampler", "scale"} <= comment.keys()


def _told(source: Mapping[str, str], comment: Mapping[str, object]) -> Infotext:
    prompt = comment.get("prompt") or _caption(comment.get("v4_prompt")) or source.get("Description", "")
    negative = comment.get("uc") or _caption(comment.get("v4_negative_prompt"))
    model = source.get("Source", "")
    hashed = re.fullmatch(r"(.*?)\s+([0-9A-F]{8})", model)
    parameters = {
        **named({key: comment[key] for key in NAMES if key in comment}, NAMES),
        **size_of(comment),
        **({"Model hash": hashed[2], "Model": hashed[1]} if hashed else {"Model": model} if model else {}),
        **named(comment, {}, drop=PROMPTS | NAMES.keys()),
    }
    return Infotext(said(prompt).strip(), said(negative).strip(), parameters)


def _caption(prompt: object) -> str:
    """Version 4 keeps a prompt in parts: the picture's own, and one for each figure in it."""
    return said(an_object(an_object(prompt).get("caption")).get("base_caption"))
