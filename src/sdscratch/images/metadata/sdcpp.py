"""stable-diffusion.cpp: the web UIs' text, and in its last line `SDCPP: {…}`, JSON that is not quoted."""

from __future__ import annotations

import json

from sdscratch.images.metadata.infotext import Infotext, parse_infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import json_object, said
from sdscratch.images.metadata.webui import web_uis_text

__all__ = ["read"]

MARK, VERSION = "SDCPP", "stable-diffusion.cpp"


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What stable-diffusion.cpp says: the pairs of its line, and the JSON whole under `SDCPP`."""
    text = web_uis_text(texts)
    if text is None:
        return None
    body, record = _without_json(text)
    told = parse_infotext(body)
    ours = told.parameters.get("Version", "").startswith(VERSION)
    if record is None and not ours:
        return None
    parameters = {**told.parameters, **({MARK: said(record)} if record is not None else {})}
    return "sdcpp", Infotext(told.prompt, told.negative_prompt, parameters)


def _without_json(text: str) -> tuple[str, object]:
    """The text without `SDCPP: {…}`, whose commas and colons would be taken for pairs; and what it says."""
    start = text.rfind(f"{MARK}: {{")
    if start < 0 or "\n" in text[start:].rstrip():
        return text, None
    place = start + len(MARK) + 2
    try:
        _, length = json.JSONDecoder().raw_decode(text[place:])
    except (ValueError, RecursionError):
        return text, None
    record = json_object(text[place : place + length])
    rest = text[place + length :].lstrip().removeprefix(",").lstrip()
    return text[:start].rstrip().removesuffix(",") + (f", {rest}" if rest else ""), record
