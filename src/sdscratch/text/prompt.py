"""What a prompt is once it has been read: spans of text with weights, stages, parts, tags. No torch.

A syntax (`syntax/`, a file each) makes these from what a user typed; `chunks.py` makes of them what a text
encoder reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BREAK", "Blend", "Part", "Prompt", "Span", "Stage", "Tag", "selected", "take_tags"]

BREAK = "BREAK"  # how a break is written in the web UIs' syntaxes; its weight there is -1

TAG = re.compile(r"<(\w+):([^>]*)>")


@dataclass(frozen=True)
class Span:
    """A run of text with one weight, or a place where a new chunk begins."""

    text: str
    weight: float = 1.0
    breaks: bool = False  # the text is the word BREAK, and no text to be encoded

    @classmethod
    def chunk_break(cls) -> Span:
        """A break as the web UI lists it: the word, with a weight that no bracket gives."""
        return cls(BREAK, -1.0, breaks=True)


@dataclass(frozen=True)
class Part:
    """One of the texts that AND joins: it pulls a picture by its weight (Liu et al. 2022, equation 11)."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A text that is drawn up to some evaluation of the network."""

    end: int  # its last evaluation, counted from 1
    text: str


@dataclass(frozen=True)
class Tag:
    """An add-on asked for in the prompt: `<kind:arguments>`."""

    kind: str  # in small letters
    arguments: str
    text: str  # as typed

    @property
    def is_lora(self) -> bool:
        """Whether it asks for a LoRA, by the name of today or by that of the extension for LyCORIS."""
        return self.kind in ("lora", "lyco")


@dataclass(frozen=True)
class Blend:
    """compel's sum of prompts: each a row of spans, with its share."""

    prompts: tuple[tuple[Span, ...], ...]
    shares: tuple[float, ...] = (1.0,)
    normalized: bool = True  # the shares are divided by their sum
    weight: float = 1.0  # of the whole, where `.and()` joins it to others

    @property
    def text(self) -> str:
        """What it says, without weights."""
        return " ".join(span.text for prompt in self.prompts for span in prompt)


@dataclass(frozen=True)
class Prompt:
    """A prompt as its syntax reads it, before it is known how many steps there are.

    Attributes:
        text: what was typed, without add-on tags.
        syntax: the name of the syntax that read it.
        spans: the text as it stands, weights resolved; editing and AND are not looked at.
        parts: the texts that AND joins; one where there is none.
        tags: the add-ons that it asks for.
        blends: compel's conjunction, whose contexts are put one after the other; empty for other syntaxes.
    """

    text: str
    syntax: str
    spans: tuple[Span, ...]
    parts: tuple[Part, ...]
    tags: tuple[Tag, ...] = ()
    blends: tuple[Blend, ...] = ()


def take_tags(text: str) -> tuple[str, tuple[Tag, ...]]:
    """The text without anything like `<word:…>`, as the web UI takes it out, and what was found.

    Kinds are known in any case of letters. Whoever does not know a kind has to say so: the tag is not drawn.
    """
    tags = tuple(Tag(match[1].lower(), match[2], match[0]) for match in TAG.finditer(text))
    return TAG.sub("", text), tags


def selected(stages: Sequence[Stage], evaluation: int) -> int:
    """Which stage evaluation `evaluation`, counted from 0, reads.

    As in the web UI the first stage whose end is not below it: every stage lasts one evaluation longer than
    it says. Past the last one it is the first again, which samplers meet that evaluate more often than
    planned.
    """
    return next((index for index, stage in enumerate(stages) if evaluation <= stage.end), 0)
