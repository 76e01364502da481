"""What stands in a page of the docs: its links, headings, code, and the commands in it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["ROOT", "Page", "pages", "words_of"]

ROOT = Path(__file__).parents[2]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
ENDS = {"|", ">", ">>", "<", ";", "&&", "&"}  # what follows is another command's, or a file's name


@dataclass(frozen=True)
class Page:
    """A Markdown file of the project."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """What stands outside blocks of code, with lines joined to paragraphs where a span may be broken."""
        return FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """The blocks of code of a language."""
        return [body for name, body in FENCE.findall(self.text) if name == language]

    @cached_property
    def links(self) -> list[str]:
        """Where its links and pictures point."""
        return LINK.findall(SPAN.sub("code", self.prose))

    @cached_property
    def spans(self) -> list[str]:
        """The pieces of code in its text."""
        return SPAN.findall(self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """What its headings are called in links, as GitHub forms it."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE):
            name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return found

    def commands(self) -> Iterator[list[str]]:
        """Every command of its shell examples, as its words; what a pipe leads to is one of its own."""
        for block in self.blocks("sh"):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                yield from words_of(line)


def words_of(line: str) -> Iterator[list[str]]:
    """The commands of one line of shell, as their words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ENDS:
            if words:
                yield words
            words = []
        else:
            words.append(word)


def pages() -> list[Page]:
    """Every page that the project shows."""
    return [
        Page(path)
        for path in (
            ROOT / "README.md",
            ROOT / "weights" / "README.md",
            *sorted((ROOT / "docs").rglob("*.md")),
        )
    ]
