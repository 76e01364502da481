"""A page of `explain`, taken apart."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["ExplainedPage", "levels_of"]

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Outline(HTMLParser):
    """Elements with their attributes and text, and whether every one is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """An element ends: the one that began last."""
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Text."""
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


@dataclass(frozen=True)
class ExplainedPage:
    """A page, as bytes."""

    html: bytes

    @classmethod
    def read(cls, path: Path) -> ExplainedPage:
        """A page's file."""
        return cls(path.read_bytes())

    @cached_property
    def outline(self) -> Outline:
        """Its elements."""
        outline = Outline()
        outline.feed(self.html.decode())
        outline.close()
        assert outline.open == []
        return outline

    @cached_property
    def data(self) -> list[dict[str, Any]]:
        """What its script reads, run by run."""
        (found,) = re.findall(
            r'<script type="application/json" id="data">(.*?)</script>', self.html.decode(), re.DOTALL
        )
        runs: list[dict[str, Any]] = json.loads(found)
        return runs

    @property
    def text(self) -> str:
        """What a reader reads, in one line."""
        return " ".join("".join(self.outline.text).split())

    def images(self, kind: str, run: int = 0) -> list[np.ndarray]:
        """Grey pictures by frame."""
        return [levels_of(each) for each in self.data[run]["images"][kind]["all"]]

    def pictures(self) -> list[Image.Image]:
        """The finished pictures, as they stand in the page."""
        found = [
            attributes["href"]
            for tag, attributes in self.outline.elements
            if tag == "a" and attributes.get("class") == "download"
        ]
        return [Image.open(io.BytesIO(base64.b64decode(str(each).partition(",")[2]))) for each in found]


def levels_of(text: str) -> np.ndarray:
    """A grey PNG in base64 → its levels."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
