"""CLIP's tokenizer: a prompt becomes the ids that the text encoder knows (Radford et al. 2021, section 2.4).

Byte-level BPE (Sennrich et al. 2016; over bytes: Radford et al. 2019) on lowercased text, run by the
`tokenizers` library; same ids as transformers' CLIPTokenizer. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from sdscratch.errors import UsageError
from sdscratch.text.files import folder_files, read_vocabulary
from sdscratch.text.vocabulary import WORD_END, Merge, Vocabulary, byte_pieces

__all__ = ["Tokenizer", "Tokens", "learn_merges"]

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Tokens:
    """A text as the text encoder knows it. Where it was cut (`cutting.cut_prompt`), what is not seen."""

    ids: tuple[int, ...]  # start … end, unpadded
    pieces: tuple[str, ...]  # the vocabulary's entries for them
    cut: str = ""  # the tail of the prompt that found no room, in the user's own words
    truncated: int = 0  # how many tokens were cut
    offsets: tuple[int, ...] = field(default=(), compare=False)  # where each own token begins in the text

    def padded(self, length: int, pad: int) -> list[int]:
        """The ids, followed by `pad` up to `length`.

        Raises:
            ValueError: there are more than `length`.
        """
        if len(self.ids) > length:
            raise ValueError(f"{len(self.ids)} ids in a row of {length}; cut the text first")
        return [*self.ids, *[pad] * (length - len(self.ids))]


class Tokenizer:
    """Prompts to ids, for any vocabulary in CLIP's vocabulary.

    Attributes:
        length: ids of a padded prompt (77), start and end included.
        start, end, pad: the ids of the special tokens (49406, 49407, 49407 for Stable Diffusion 1.x).
        size: how many rows the text encoder's table must have (49408).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.length = vocabulary.length
        self.start, self.end, self.pad = (
            vocabulary.ids[name] for name in (vocabulary.start, vocabulary.end, vocabulary.pad)
        )
        self.size = max(vocabulary.ids.values()) + 1

    @classmethod
    def from_merges(cls, merges: Sequence[Merge], length: int = 77) -> Self:
        """From merges alone: CLIP's ids are 256 bytes, 256 bytes at a word's end, the merges, start, end."""
        return cls(Vocabulary.from_merges(merges, length))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the string that rides in a model file's metadata.

        Raises:
            TokenizerError: not such a string.
        """
        return cls(Vocabulary.from_json(text))

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """From a folder (`vocab.json` and `merges.txt`, or `tokenizer.json`), the diffusers folder around it,
        one of these files, or a merge table alone.

        Raises:
            TokenizerError: missing, broken, or not in CLIP's vocabulary.
        """
        return cls(read_vocabulary(Path(path)))

    def to_json(self) -> str:
        """A compact string for a model file's metadata; the same for equal tokenizers."""
        return self.vocabulary.to_json()

    def to_files(self) -> dict[str, str]:
        """The files of a diffusers folder's `tokenizer/`, by name; every transformers version reads them."""
        return folder_files(self.vocabulary)

    def encode(self, text: str) -> Tokens:
        """All ids of a text, between start and end. What is too long for the text encoder is not cut here.

        Raises:
            UsageError: the text holds bytes that are no text (lone surrogates, as a shell passes them on).
        """
        words = self._words(text)
        ids = (self.start, *words.ids, self.end)
        return Tokens(
            ids=ids,
            pieces=tuple(self._pieces[id] for id in ids),
            offsets=tuple(first for first, _ in words.offsets),
        )

    def ids(self, text: str) -> list[int]:
        """The ids of a piece of text alone, without start and end.

        Raises:
            UsageError: as `encode`.
        """
        return list(self._words(text).ids)

    def piece(self, id: int) -> str:
        """The vocabulary's entry for an id."""
        return self._pieces[id]

    @cached_property
    def comma(self) -> int | None:
        """The id of a comma that stands alone, which A1111 likes to cut behind."""
        return self.vocabulary.ids.get(f",{WORD_END}")

    def _words(self, text: str) -> tokenizers.Encoding:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"character {error.start + 1} of the prompt is not valid text; give the prompt in UTF-8"
            ) from None
        return self._backend.encode(text, add_special_tokens=False)

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {id: piece for piece, id in self.vocabulary.ids.items()}

    @cached_property
    def _backend(self) -> tokenizers.Tokenizer:
        vocabulary = self.vocabulary
        model = models.BPE(
            vocab=dict(vocabulary.ids),
            merges=list(vocabulary.merges),
            unk_token=vocabulary.unknown,
            continuing_subword_prefix="",
            end_of_word_suffix=WORD_END,
        )
        backend = _empty_backend(model)
        backend.add_tokens([tokenizers.AddedToken(**asdict(token)) for token in vocabulary.added])
        return backend


def _empty_backend(model: models.BPE) -> tokenizers.Tokenizer:
    """How text becomes words, whatever the vocabulary."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),  # splits once more, by GPT-2's rule
        ]
    )
    return backend


def learn_merges(texts: Iterable[str], count: int) -> list[Merge]:
    """At most `count` merges learnt from texts, for `Tokenizer.from_merges`; fewer where no pair is left."""
    backend = _empty_backend(models.BPE(end_of_word_suffix=WORD_END))
    # Equally frequent pairs are merged in the order of their ids: so each byte has one from the start.
    pieces = [byte + end for end in ("", WORD_END) for byte in byte_pieces()]
    trainer = trainers.BpeTrainer(
        vocab_size=len(pieces) + count,
        special_tokens=pieces,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learnt = json.loads(backend.to_str())["model"]["merges"]
    return [(left, right) for left, right in learnt[:count]]
