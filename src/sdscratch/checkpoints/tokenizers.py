"""The tokenizer that belongs to a model: with it, beside it, in the user's folder, elsewhere on this machine,
or from the hub.

This module imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sdscratch.checkpoints import hub
from sdscratch.checkpoints.clip_table import find_clip, keep
from sdscratch.checkpoints.places import tokenizer_folder
from sdscratch.errors import TokenizerError
from sdscratch.models.config import TextEncoderConfig
from sdscratch.text.tokenizer import Tokenizer

__all__ = ["TOKENIZER", "find_tokenizer", "own_tokenizer"]

log = logging.getLogger(__name__)

TOKENIZER = "sdscratch.tokenizer"  # the key of a single file's metadata

CLIP_VOCABULARY = 49408  # a text encoder of this size was trained with OpenAI's tokenizer


def own_tokenizer(path: Path, metadata: Mapping[str, str]) -> Tokenizer | None:
    """The tokenizer inside a model: in a file's metadata, in a diffusers folder.

    Raises:
        TokenizerError: it is broken.
    """
    if TOKENIZER in metadata:
        return Tokenizer.from_json(metadata[TOKENIZER])
    return Tokenizer.from_path(path / "tokenizer") if (path / "tokenizer").is_dir() else None


def find_tokenizer(
    path: Path, text: TextEncoderConfig, given: str | None, own: Tokenizer | None
) -> Tokenizer:
    """The tokenizer for a model at `path`: the one given, its own, else wherever one is found.

    Raises:
        TokenizerError: there is none, it is broken, or it does not fit the text encoder.
    """
    if given is not None:
        return _fitting(Tokenizer.from_path(given), text, given)
    return _fitting(own or _search(path, text), text, str(path))


def _search(path: Path, text: TextEncoderConfig) -> Tokenizer:
    for folder in filter(None, (path.parent, tokenizer_folder())):
        if (folder / "tokenizer.json").is_file() or (
            (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
        ):
            log.info("the tokenizer is the one in %s", folder)
            return Tokenizer.from_path(folder)
    if text.vocabulary != CLIP_VOCABULARY:
        raise TokenizerError(f"{path} comes without its tokenizer; name it with --tokenizer")
    found = find_clip(path)
    if found is None:
        found = Tokenizer.from_path(hub.fetch_tokenizer(path))
        keep(found)
    return found


def _fitting(tokenizer: Tokenizer, text: TextEncoderConfig, name: str) -> Tokenizer:
    if tokenizer.size > text.vocabulary or tokenizer.length > text.length:
        raise TokenizerError(
            f"the tokenizer of {name} has {tokenizer.size} pieces and prompts of {tokenizer.length} tokens, "
            f"but its text encoder knows {text.vocabulary} and {text.length}; name another with --tokenizer"
        )
    return tokenizer
