"""A prompt as the networks get it: rows of tokens, and the words that attention is counted by.

Words are whole ones: the pieces of a word are one entry, as a reader would have it. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdscratch.text.chunks import Chunk
from sdscratch.text.reading import PlannedPart, PlannedStage
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.vocabulary import WORD_END

__all__ = ["END", "START", "Token", "Word", "tokens_of", "words_of_part", "words_of_stage"]

START, END = "‹start›", "‹end, padding›"


@dataclass(frozen=True)
class Token:
    """One token of a row that the text encoder reads."""

    position: int  # in its chunk, from 0
    id: int
    piece: str  # the vocabulary's entry, or an embedding's name and number
    weight: float
    kind: str  # start, word, vector, end, padding


@dataclass(frozen=True)
class Word:
    """A word of the prompt, and where its tokens stand in the context.

    Attributes:
        name: as it is shown.
        key: the same, told apart from others that are spelled alike: "dog", "dog (2)".
        places: rows of the context, over all chunks.
    """

    name: str
    key: str
    places: tuple[int, ...]
    weight: float = 1.0


def tokens_of(chunk: Chunk, tokenizer: Tokenizer) -> list[Token]:
    """A chunk token by token, padding included."""
    vectors = {
        place.at + index: f"{place.name}[{place.first + index}]"
        for place in chunk.vectors
        for index in range(place.count)
    }
    found = []
    for position, (id, weight) in enumerate(zip(chunk.ids, chunk.weights, strict=True)):
        piece = vectors.get(position) or tokenizer.piece(id)
        found.append(Token(position, id, piece, weight, kind_of(position, chunk, position in vectors)))
    return found


def kind_of(position: int, chunk: Chunk, is_vector: bool) -> str:
    """What stands at a position of a chunk."""
    if position == 0:
        return "start"
    if position <= chunk.used:
        return "vector" if is_vector else "word"
    return "end" if position == chunk.used + 1 else "padding"


def words_of_stage(stage: PlannedStage, tokenizer: Tokenizer) -> list[Word]:
    """All words of a stage, and first and last what is no word: each place of the context is in one."""
    starts: list[int] = []
    ends: list[int] = []
    words: list[tuple[str, list[int], float]] = []
    place = 0
    for chunk in stage.chunks:
        open_word = False
        for token in tokens_of(chunk, tokenizer):
            if token.kind == "start":
                starts.append(place)
            elif token.kind in ("end", "padding"):
                ends.append(place)
            else:
                text = token.piece.removesuffix(WORD_END)
                if open_word:
                    name, places, weight = words[-1]
                    words[-1] = (name + text, [*places, place], weight)
                else:
                    words.append((text, [place], token.weight))
                open_word = token.kind == "word" and not token.piece.endswith(WORD_END)
            place += 1
    named = [Word(name, key, tuple(places), weight) for key, (name, places, weight) in _keyed(words)]
    return [Word(START, START, tuple(starts)), *named, Word(END, END, tuple(ends))]


def words_of_part(part: PlannedPart, tokenizer: Tokenizer) -> list[str]:
    """The keys of the words of all stages, in the order in which they first stand."""
    keys = [word.key for stage in part.stages for word in words_of_stage(stage, tokenizer)]
    return [START, *(key for key in dict.fromkeys(keys) if key not in (START, END)), END]


def _keyed(
    words: Sequence[tuple[str, list[int], float]],
) -> Iterator[tuple[str, tuple[str, list[int], float]]]:
    seen: dict[str, int] = {}
    for word in words:
        seen[word[0]] = count = seen.get(word[0], 0) + 1
        yield word[0] if count == 1 else f"{word[0]} ({count})", word
