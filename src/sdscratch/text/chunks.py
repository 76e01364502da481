"""From spans to chunks: the rows that a text encoder reads, one after the other, each as long as it allows.

Every tool cuts a long prompt in its own way, a function each. No torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sdscratch.errors import UsageError
from sdscratch.text.cutting import encode_prompt
from sdscratch.text.prompt import Span
from sdscratch.text.tokenizer import Tokenizer

__all__ = [
    "Chunk",
    "Chunker",
    "Embedding",
    "Vectors",
    "chunk_a1111",
    "chunk_comfyui",
    "chunk_compel",
    "chunk_kohya",
    "chunk_plain",
    "chunk_sdcpp",
    "compel_chunk",
    "empty_chunk",
]

log = logging.getLogger(__name__)

COMMA_BACKTRACK = 20  # tokens: A1111's setting, as it is by default
WHOLE_WORD = 8  # tokens: what is shorter, ComfyUI does not cut
KOHYA_CHUNKS = 3  # kohya's --max_embeddings_multiples
EMBEDDING = "embedding:"  # how ComfyUI's prompts name one
EMBEDDING_SUFFIXES = ("", ".safetensors", ".pt", ".bin")


class Embedding(Protocol):
    """A textual inversion, as far as a prompt needs to know it (Gal et al. 2022)."""

    @property
    def name(self) -> str:
        """What calls it in a prompt."""

    @property
    def count(self) -> int:
        """How many vectors stand for the name."""


@dataclass(frozen=True)
class Vectors:
    """Where vectors of an embedding stand instead of words' own."""

    at: int  # index of the first in the chunk's ids
    name: str
    count: int
    first: int = 0  # which of the embedding's vectors is the first: not 0 where a chunk's border cut it


@dataclass(frozen=True)
class Chunk:
    """A row for the text encoder: as many ids and weights as it is long, start and end included."""

    ids: tuple[int, ...]  # 0 where a vector stands
    weights: tuple[float, ...]  # 1 for start, end and padding
    vectors: tuple[Vectors, ...] = ()
    used: int = 0  # ids between start and the end or padding
    masked: tuple[int, ...] = ()  # indices that attention is not to see (compel)
    broken: bool = False  # a BREAK ends it


Chunker = Callable[[Sequence[Span], Tokenizer, Sequence[Embedding]], list[Chunk]]


@dataclass
class _Draft:
    """A chunk that is being filled, without start and end."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def add_vectors(self, name: str, count: int, weight: float, first: int = 0) -> None:
        self.vectors.append(Vectors(len(self.ids) + 1, name, count, first))
        self.add([0] * count, weight)

    def finished(self, tokenizer: Tokenizer, broken: bool = False) -> Chunk:
        fill = tokenizer.length - 2 - len(self.ids)
        ids = [tokenizer.start, *self.ids, tokenizer.end, *[tokenizer.pad] * fill]
        weights = [1.0, *self.weights, 1.0, *[1.0] * fill]
        return Chunk(tuple(ids), tuple(weights), tuple(self.vectors), len(self.ids), broken=broken)


def _room(tokenizer: Tokenizer) -> int:
    """How many ids of words a chunk takes."""
    if tokenizer.length < 3:
        raise UsageError(f"the text encoder reads {tokenizer.length} tokens, which leaves no room for a word")
    return tokenizer.length - 2


def empty_chunk(tokenizer: Tokenizer) -> Chunk:
    """The empty prompt."""
    return _Draft().finished(tokenizer)


# Plain: one chunk, and what is longer is cut.


def chunk_plain(spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> list[Chunk]:
    """One chunk of the spans' text, cut with a warning. Embeddings are words like others."""
    row = encode_prompt(tokenizer, "".join(span.text for span in spans))
    return [Chunk(tuple(row), (1.0,) * len(row), used=len(row) - 2)]


# A1111 and stable-diffusion.cpp: chunks filled from left to right, BREAK begins one.


def chunk_a1111(spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> list[Chunk]:
    """As A1111 and Forge do it.

    Where a chunk is full and its last comma is at most 20 tokens back, what follows the comma moves to the
    next chunk. An embedding is found by its name's ids anywhere in a span, the longest name first, and
    moves whole; when a comma moves it after all, its vectors stay where they were (in the old chunk's
    padding) and ids 0 move: the tool's own slip, kept for the sake of the same picture.

    Raises:
        UsageError: an embedding has more vectors than a chunk has room.
    """
    return _fill(spans, tokenizer, embeddings, COMMA_BACKTRACK)


def chunk_sdcpp(spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> list[Chunk]:
    """As stable-diffusion.cpp does it: commas mean nothing, and a break after a full chunk adds none.

    Raises:
        UsageError: an embedding has more vectors than a chunk has room.
    """
    return _fill(spans, tokenizer, embeddings, comma_backtrack=0, breaks_full_chunks=False)


def _fill(
    spans: Sequence[Span],
    tokenizer: Tokenizer,
    embeddings: Sequence[Embedding],
    comma_backtrack: int,
    breaks_full_chunks: bool = True,
) -> list[Chunk]:
    room = _room(tokenizer)
    finished: list[Chunk] = []
    names = _names(embeddings, tokenizer, room)
    draft, comma = _Draft(), -1  # the comma's index in the draft

    def finish(broken: bool = False) -> None:
        nonlocal draft, comma
        finished.append(draft.finished(tokenizer, broken))
        draft, comma = _Draft(), -1

    for span in spans:
        if span.breaks:
            if breaks_full_chunks or draft.ids:
                finish(broken=True)
            continue
        ids = tokenizer.ids(span.text)
        place = 0
        while place < len(ids):
            full = len(draft.ids) == room
            if ids[place] == tokenizer.comma:
                comma = len(draft.ids)
            elif full and comma >= 0 and room - comma <= comma_backtrack:
                moved = draft.ids[comma + 1 :], draft.weights[comma + 1 :]
                del draft.ids[comma + 1 :], draft.weights[comma + 1 :]
                finish()
                draft.ids, draft.weights = moved
            if len(draft.ids) == room:
                finish()
            found = _embedding_at(ids, place, names)
            if found is None:
                draft.add(ids[place : place + 1], span.weight)
                place += 1
                continue
            embedding, length = found
            if len(draft.ids) + embedding.count > room:
                finish()
            draft.add_vectors(embedding.name, embedding.count, span.weight)
            place += length
        if not breaks_full_chunks and len(draft.ids) == room:
            finish()
    if draft.ids or not finished:
        finish()
    return finished


Names = dict[int, list[tuple[list[int], Embedding]]]  # by first id, longest first


def _names(embeddings: Iterable[Embedding], tokenizer: Tokenizer, room: int) -> Names:
    names: Names = {}
    for embedding in embeddings:
        if embedding.count > room:
            raise UsageError(
                f"the embedding {embedding.name} has {embedding.count} vectors, and the text encoder reads "
                f"{room} at once; use another embedding or model"
            )
        if ids := tokenizer.ids(embedding.name):
            names.setdefault(ids[0], []).append((ids, embedding))
    for same in names.values():
        same.sort(key=lambda entry: -len(entry[0]))
    return names


def _embedding_at(ids: Sequence[int], place: int, names: Names) -> tuple[Embedding, int] | None:
    for name, embedding in names.get(ids[place], ()):
        if list(ids[place : place + len(name)]) == name:
            return embedding, len(name)
    return None


# ComfyUI: a segment of few tokens is kept whole.


def chunk_comfyui(
    spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]
) -> list[Chunk]:
    """As ComfyUI does it.

    A group (what stands between two embeddings or weights, or an embedding) of fewer than 8 tokens is never
    cut. `embedding:NAME` counts at a span's start and after a space or a line feed; a name that is unknown
    is left out, with a warning. Where no embedding is at hand at all, the word is text.
    """
    room = _room(tokenizer)
    finished: list[Chunk] = []
    draft = _Draft()
    for span in spans:
        for group in _groups(span.text, tokenizer, embeddings):
            whole = len(group) < min(WHOLE_WORD, room + 1)
            while len(group) > room - len(draft.ids):
                if not whole:
                    left = room - len(draft.ids)
                    group[:left].add_to(draft, span.weight)
                    group = group[left:]
                finished.append(draft.finished(tokenizer))
                draft = _Draft()
            group.add_to(draft, span.weight)
    return [*finished, draft.finished(tokenizer)]


@dataclass(frozen=True)
class _Group:
    """Ids, or an embedding's vectors."""

    ids: Sequence[int]
    name: str | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> _Group:
        return _Group(self.ids[part], self.name, self.first + (part.start or 0))

    def add_to(self, draft: _Draft, weight: float) -> None:
        if self.name is None:
            draft.add(self.ids, weight)
        elif self.ids:
            draft.add_vectors(self.name, len(self.ids), weight, self.first)


def _groups(text: str, tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> Iterator[_Group]:
    for word in _words(text):
        rest = word
        if embeddings and word.startswith(EMBEDDING):
            embedding, rest = _named(word.removeprefix(EMBEDDING), embeddings)
            if embedding is not None:
                yield _Group([0] * embedding.count, embedding.name)
        if rest:
            yield _Group(tokenizer.ids(rest))


def _words(text: str) -> list[str]:
    """The text cut before each `embedding:` that follows a space or a line feed, which is lost."""
    first, *others = text.replace(f"\n{EMBEDDING}", f" {EMBEDDING}").split(f" {EMBEDDING}")
    return [word for word in (first, *(EMBEDDING + other for other in others)) if word]


def _named(text: str, embeddings: Sequence[Embedding]) -> tuple[Embedding | None, str]:
    """The embedding that a text begins with, and what is left; commas around its name are text."""
    name, *rest = text.split() or [""]
    left = " ".join(rest)
    known = {embedding.name + suffix: embedding for embedding in embeddings for suffix in EMBEDDING_SUFFIXES}
    embedding = known.get(name)
    if embedding is None and (bare := name.strip(",")) != name:
        embedding, left = known.get(bare), f"{name[len(bare) :]} {left}"
    if embedding is None:
        log.warning(f"there is no embedding {name!r}; it is left out of the prompt")
    return embedding, left


# kohya and compel: one long row of ids, cut where the text encoder ends.


def chunk_kohya(spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> list[Chunk]:
    """As kohya's gen_img does it: at most three chunks, and the rest is not used.

    A BREAK fills the row up to a multiple of the text encoder's whole length (77), though a chunk takes two
    ids less: what follows it does not begin a chunk. Embeddings are words like others: the tool puts ids of
    its own in their place before it reads a prompt.
    """
    row = _Draft()
    most = _room(tokenizer) * KOHYA_CHUNKS
    for span in spans:
        if span.breaks:
            row.add([tokenizer.pad] * (tokenizer.length - len(row.ids) % tokenizer.length), 1.0)
        else:
            row.add(tokenizer.ids(span.text), span.weight)
        if len(row.ids) > most:
            log.warning(f"the prompt is longer than {most} tokens; what follows is not used")
            break
    del row.ids[most:], row.weights[most:]
    return _cut_row(row, tokenizer)


def chunk_compel(spans: Sequence[Span], tokenizer: Tokenizer, embeddings: Sequence[Embedding]) -> list[Chunk]:
    """As compel does it by default: each span is tokenized on its own, and one chunk is taken of them all."""
    room = _room(tokenizer)
    count = sum(len(tokenizer.ids(span.text)) for span in spans)
    if count > room:
        log.warning(f"the prompt is longer than {room} tokens; its last {count - room} are not used")
    return [compel_chunk(spans, tokenizer)]


def compel_chunk(spans: Sequence[Span], tokenizer: Tokenizer) -> Chunk:
    """The same without a word."""
    row = _Draft()
    room = _room(tokenizer)
    for span in spans:
        row.add(tokenizer.ids(span.text), span.weight)
    del row.ids[room:], row.weights[room:]
    return row.finished(tokenizer)


def _cut_row(row: _Draft, tokenizer: Tokenizer) -> list[Chunk]:
    room = _room(tokenizer)
    return [
        _Draft(row.ids[start : start + room], row.weights[start : start + room]).finished(tokenizer)
        for start in range(0, max(len(row.ids), 1), room)
    ]
