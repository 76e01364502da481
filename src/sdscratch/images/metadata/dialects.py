"""Who says how a picture was made, and what: every tool's reader in turn, the particular ones first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sdscratch.images.metadata import (
    comfyui,
    diffusers,
    drawthings,
    fooocus,
    invokeai,
    kohya,
    novelai,
    sdcpp,
    webui,
)
from sdscratch.images.metadata.infotext import Infotext, parse_infotext
from sdscratch.images.metadata.record import Record
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.webui import web_uis_text

__all__ = ["OWN", "OWN_START", "READERS", "Records", "records_in"]

Reader = Callable[[Texts], tuple[str, Infotext] | None]

OWN = "sdscratch"
OWN_START = '{"sdscratch":'
READERS: tuple[Reader, ...] = (
    fooocus.read,  # its infotext differs from the web UIs' in the version only
    sdcpp.read,  # likewise
    novelai.read,
    invokeai.read,
    comfyui.read,  # before the web UIs: nodes write an infotext beside the graph
    drawthings.read,
    kohya.read,
    diffusers.read,
    webui.read,
)


@dataclass(frozen=True)
class Records:
    """What a picture says about how it was made.

    Our own record, or else what another tool says, in the web UIs' words. With neither, `tool` is None, and
    `texts` may hold what was said in no known dialect.
    """

    record: Record | None = None
    infotext: Infotext | None = None
    beside: Infotext | None = field(default=None, compare=False)  # the infotext written with our record
    tool: str | None = field(default=None, compare=False)
    texts: Texts = field(default_factory=Texts, compare=False)


def records_in(texts: Texts) -> Records:
    """What these texts say.

    Raises:
        ImageError: a record of ours that this version cannot read.
    """
    own = texts.png.get(OWN, texts.exif.get("ImageDescription", ""))
    if own.startswith(OWN_START):  # cameras write descriptions too
        text = web_uis_text(texts)
        beside = parse_infotext(text) if text is not None else None
        return Records(Record.from_json(own), beside=beside, tool=OWN, texts=texts)
    for read in READERS:
        told = read(texts)
        if told is not None:
            return Records(infotext=told[1], tool=told[0], texts=texts)
    return Records(texts=texts)
