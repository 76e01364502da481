"""What a CLIP tokenizer consists of, as one frozen value: merges, vocabulary, special tokens, length.

A `Vocabulary` travels in a model file's metadata as a compact string (`to_json`, `from_json`). CLIP's ids
follow from its merges, so that the string holds the merges alone (half a megabyte for CLIP's
48,894, where the tokenizers library's own JSON takes three and a half); what deviates is written beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, astuple, dataclass, fields
from typing import Any, Self

from sdscratch.errors import TokenizerError
from sdscratch.show import printable

__all__ = ["WORD_END", "AddedToken", "Merge", "Vocabulary", "byte_pieces", "clip_vocabulary"]

Merge = tuple[str, str]

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
MAX_ID = 2**31 - 1


def byte_pieces() -> list[str]:
    """The 256 characters that stand for bytes, in the order of CLIP's ids.

    GPT-2's idea (Radford et al. 2019, section 2.2): every byte gets a visible character. Printable Latin-1
    stands for itself and comes first; the other 68 bytes follow as the characters from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + n) for n in range(256 - len(visible))]


def clip_vocabulary(merges: Sequence[Merge], start: str = START, end: str = END) -> dict[str, int]:
    """The vocabulary that CLIP's form implies: bytes, bytes at a word's end, merges, start and end token."""
    pieces = byte_pieces()
    pieces += [piece + WORD_END for piece in pieces]
    pieces += [left + right for left, right in merges]
    # dict.fromkeys: two merges may give the same piece (not in CLIP's table), which then has one id
    return {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, start, end]))}


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text as it stands, before the text is split into words."""

    content: str
    normalized: bool = False  # looked for in the lowercased text, not in the text as typed
    special: bool = True
    lstrip: bool = False  # swallows white space on its left
    rstrip: bool = False
    single_word: bool = False  # found only between word boundaries

    def __post_init__(self) -> None:
        content, *flags = astuple(self)
        if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags):
            raise ValueError(f"its added token {self.content!r} is not a text with flags")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of CLIP's kind: byte-level BPE in which `</w>` marks a word's end.

    Raises:
        ValueError: parts that do not fit together (a merge or a special token without an id, …).
    """

    merges: tuple[Merge, ...]
    ids: Mapping[str, int]  # of every piece, special tokens included
    length: int = 77  # ids of a padded prompt, start and end included
    start: str = START
    end: str = END
    unknown: str = END  # stands for a byte that the vocabulary lacks; CLIP's lacks none
    pad: str = END
    added: tuple[AddedToken, ...] = ()  # left empty: start, end, unknown and pad

    @classmethod
    def from_merges(cls, merges: Sequence[Merge], length: int = 77) -> Self:
        """CLIP's own form, whose vocabulary follows from the merges."""
        return cls(tuple(merges), clip_vocabulary(merges), length)

    def __post_init__(self) -> None:
        if not self.added:
            object.__setattr__(self, "added", self._usual_tokens())
        values = self.ids.values()
        if not all(type(id) is int and 0 <= id <= MAX_ID for id in values) or len(set(values)) != len(values):
            raise ValueError("the ids of its vocabulary are not distinct whole numbers")
        "".join(self.ids).encode()  # lone surrogates, which JSON can write, are a ValueError
        for token in (*self.added, *self._usual_tokens()):
            if token.content not in self.ids:
                raise ValueError(f"its vocabulary lacks the special token {token.content!r}")
        for left, right in self.merges:
            if not all(piece in self.ids for piece in (left, right, left + right)):
                raise ValueError(f"its vocabulary lacks a part of its merge of {left!r} and {right!r}")
            if len(f"{left} {right}".split()) != 2:
                raise ValueError(f"its merge of {left!r} and {right!r} holds white space")
        if not 2 <= self.length <= MAX_ID:
            raise ValueError(f"its length of {self.length} has no room for a start and an end token")

    def _usual_tokens(self) -> tuple[AddedToken, ...]:
        return tuple(map(AddedToken, dict.fromkeys((self.start, self.end, self.unknown, self.pad))))

    def to_json(self) -> str:
        """One line of JSON, equal for equal vocabularies: the merges, two pieces each, and what deviates."""
        record: dict[str, Any] = {"merges": " ".join(piece for merge in self.merges for piece in merge)}
        record |= {name: getattr(self, name) for name, usual in PLAIN.items() if getattr(self, name) != usual}
        if self.ids != clip_vocabulary(self.merges, self.start, self.end):
            record["vocabulary"] = dict(sorted(self.ids.items(), key=lambda item: item[1]))
        if self.added != self._usual_tokens():
            record["added"] = [asdict(token) for token in self.added]
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            TokenizerError: not such a string.
        """
        try:
            return cls._from_record(json.loads(text))
        except (RecursionError, TypeError, ValueError) as error:
            raise TokenizerError(
                f"the tokenizer inside the model file is broken ({printable(error)}); give one with "
                "--tokenizer"
            ) from None

    @classmethod
    def _from_record(cls, record: Any) -> Self:
        if not isinstance(record, dict) or not isinstance(record.get("merges"), str):
            raise ValueError("it has no merges")
        if unknown := record.keys() - ENTRIES:
            raise ValueError(f"unknown entry {min(unknown)!r}")
        for name in record.keys() & PLAIN.keys():
            if type(record[name]) is not type(PLAIN[name]):
                raise ValueError(f"its {name} is {record[name]!r}")
        pieces = record["merges"].split()
        merges = tuple(zip(pieces[::2], pieces[1::2], strict=True))
        plain = {name: record.get(name, usual) for name, usual in PLAIN.items()}
        ids = record.get("vocabulary") or clip_vocabulary(merges, plain["start"], plain["end"])
        added = tuple(AddedToken(**token) for token in record.get("added", ()))
        return cls(merges, dict(ids), **plain, added=added)


# The entries that the JSON may have; its `vocabulary` is our `ids`.
ENTRIES = {field.name for field in fields(Vocabulary)} - {"ids"} | {"vocabulary"}

# The fields that are left out of the JSON where they are what CLIP's are.
PLAIN: dict[str, Any] = {
    field.name: field.default
    for field in fields(Vocabulary)
    if field.default is not MISSING and field.name != "added"
}
