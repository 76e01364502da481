"""Tokenizer files: a folder's `vocab.json` and `merges.txt`, a `tokenizer.json`, or CLIP's merge table alone.

What a folder says besides (special tokens, length) is read as transformers 5 reads it: the ids agree.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from sdscratch.errors import TokenizerError
from sdscratch.show import printable
from sdscratch.text.vocabulary import WORD_END, AddedToken, Merge, Vocabulary
from sdscratch.texts import decode

__all__ = ["folder_files", "read_merges", "read_vocabulary"]

Record = dict[str, Any]  # a JSON object
Ids = dict[str, int]

ADVICE = "give a folder with CLIP's vocab.json and merges.txt, or its tokenizer.json"
MAX_BYTES = 64 * 2**20  # CLIP's largest file takes 3.6 MB
MAX_LENGTH = 2**16  # a model_max_length beyond it means "not said": transformers writes 10³⁰
OPENAI_HEADER = '"bpe_simple_vocab_16e6'
OPENAI_MERGES = 48_894  # their table goes on with merges that CLIP does not use

# Our names of what the special tokens are for, and transformers', in the order in which it adds them.
ROLES = {"start": "bos_token", "end": "eos_token", "unknown": "unk_token", "pad": "pad_token"}
EXTRA, EXTRA_BEFORE_5 = "extra_special_tokens", "additional_special_tokens"
TOKEN_FLAGS = tuple(field.name for field in fields(AddedToken) if field.name != "content")

FOREIGN_FILES = {
    "spiece.model": "a SentencePiece tokenizer (T5's kind)",
    "sentencepiece.bpe.model": "a SentencePiece tokenizer (XLM-RoBERTa's kind)",
    "tokenizer.model": "a SentencePiece tokenizer (Llama's kind)",
    "vocab.txt": "a WordPiece tokenizer (BERT's kind)",
}
FOREIGN_MODELS = {
    "Unigram": "a SentencePiece tokenizer (T5's kind)",
    "WordPiece": "a WordPiece tokenizer (BERT's kind)",
    "WordLevel": "a word-level tokenizer",
}
FOREIGN_BPE = f"a BPE tokenizer without {WORD_END} at the end of words (GPT-2's kind)"
FOREIGN_STARTS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file (git lfs pull fetches it)",
    b"<": "a web page",
    b"PK\x03\x04": "a zip file",
    b"\x80": "a pickle",
}

# What a file of another shape runs into somewhere; Vocabulary's own checks are ValueErrors.
MISSHAPEN = (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError, zlib.error)


def read_vocabulary(path: Path) -> Vocabulary:
    """The tokenizer at `path`: a folder (or a diffusers folder around it), a file of such a folder, a lone
    `tokenizer.json` under any name, or a lone merge table, gzipped or not.

    Raises:
        TokenizerError: missing, broken, or not in CLIP's form.
    """
    try:
        path = path.expanduser()
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise TokenizerError(f"there is no tokenizer at {shown(path)}; {ADVICE}")
        if path.name == "tokenizer.json" or path.with_name("vocab.json").is_file():
            return _read_folder(path.parent)
        if path.suffix == ".json":
            return _vocabulary(*_read_table(path), config={})
        return Vocabulary.from_merges(_read_merges(path))
    except OSError as error:  # a broken gzip has no strerror
        reason = error.strerror or error
        raise TokenizerError(
            f"the tokenizer {shown(path)} cannot be read ({printable(reason)}); {ADVICE}"
        ) from None
    except MISSHAPEN as error:
        raise TokenizerError(
            f"the tokenizer {shown(path)} is broken ({printable(error)}); {ADVICE}"
        ) from None


def read_merges(path: Path) -> list[Merge]:
    """The merges alone of a `merges.txt`, of CLIP's own table, or of a `tokenizer.json`.

    Raises:
        TokenizerError: missing, broken, or not in CLIP's form.
    """
    try:
        return _read_table(path)[1] if path.suffix == ".json" else _read_merges(path)
    except (OSError, *MISSHAPEN) as error:
        raise TokenizerError(
            f"the tokenizer {shown(path)} cannot be read ({printable(error)}); {ADVICE}"
        ) from None


def _read_folder(folder: Path) -> Vocabulary:
    if (folder / "tokenizer.json").is_file():  # goes before the others, as in transformers
        pieces, merges, listed = _read_table(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        pieces, merges = _read_json(folder / "vocab.json"), _read_merges(folder / "merges.txt")
        listed = []
    elif (folder / "tokenizer").is_dir():
        return _read_folder(folder / "tokenizer")
    else:
        for name, kind in FOREIGN_FILES.items():
            if (folder / name).is_file():
                raise _refusal(folder, kind)
        raise TokenizerError(f"the folder {shown(folder)} holds no tokenizer; {ADVICE}")
    if not any(piece.endswith(WORD_END) for piece in pieces):
        raise _refusal(folder, FOREIGN_BPE)

    config = _read_optional(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in config:  # then nothing else is asked about added tokens
        listed = [{**token, "id": int(id)} for id, token in config["added_tokens_decoder"].items()]
    else:
        if EXTRA not in config and EXTRA_BEFORE_5 in config:
            config[EXTRA] = config.pop(EXTRA_BEFORE_5)
        config |= _read_optional(folder / "special_tokens_map.json")
        special = {_token(value).content for value in _roles(config, EXTRA)}
        old = _read_optional(folder / "added_tokens.json")
        listed[:0] = [{"content": text, "id": id, "special": text in special} for text, id in old.items()]
    return _vocabulary(pieces, merges, listed, config)


def _read_table(path: Path) -> tuple[Ids, list[Merge], list[Record]]:
    """Vocabulary, merges and added tokens of a `tokenizer.json`."""
    record = _read_json(path)
    model = record["model"]
    if (kind := model.get("type", "BPE")) != "BPE":
        raise _refusal(path, FOREIGN_MODELS.get(kind, f"a tokenizer of the kind {kind!r}"))
    if model.get("end_of_word_suffix") != WORD_END:
        raise _refusal(path, FOREIGN_BPE)
    merges = [_merge(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    return model["vocab"], merges, record.get("added_tokens") or []


def _vocabulary(pieces: Ids, merges: list[Merge], listed: list[Record], config: Record) -> Vocabulary:
    """`listed`: added tokens with ids, which `pieces` may lack; `config`: special tokens by role."""
    ids = dict(pieces)
    added: dict[str, AddedToken] = {}
    for record in listed:
        token = _token(record)
        added[token.content] = token
        if ids.setdefault(token.content, record["id"]) != record["id"]:
            raise ValueError(f"its token {token.content!r} has two ids")
    # A role may be named again by a later one with other flags: the last one counts, as in transformers.
    added |= {
        token.content: token
        for token in map(_token, _roles(config, EXTRA, EXTRA_BEFORE_5))
        if token.content not in added
    }

    said: Record = {role: _token(config[key]).content for role, key in ROLES.items() if config.get(key)}
    length = config.get("model_max_length")
    if isinstance(length, int) and length <= MAX_LENGTH:
        said["length"] = length
    vocabulary = Vocabulary(tuple(merges), ids, **said)
    usual = {token.content: token for token in vocabulary.added}
    return replace(vocabulary, added=tuple((usual | added).values()))


def _roles(config: Record, *lists: str) -> list[Any]:
    """The special tokens that `config` names one by one, and those in these lists of it."""
    extra = [token for key in lists for token in config.get(key) or ()]
    return [config[key] for key in ROLES.values() if config.get(key)] + extra


def _token(value: Any) -> AddedToken:
    """From a plain string (a special token), or from the object that transformers writes."""
    if isinstance(value, str):
        return AddedToken(value)
    flags = {name: bool(value[name]) for name in TOKEN_FLAGS if name in value}
    flags.setdefault("special", True)
    flags.setdefault("normalized", not flags["special"])
    return AddedToken(str(value["content"]), **flags)


def _read_merges(path: Path) -> list[Merge]:
    lines = _read_text(path).split("\n")
    header = lines[0] if "#version" in lines[0] else ""
    merges = [_merge(line.removesuffix("\r").split(" ")) for line in lines[bool(header) :] if line.strip()]
    return merges[:OPENAI_MERGES] if header.startswith(OPENAI_HEADER) else merges


def _merge(pieces: list[str]) -> Merge:
    if len(pieces) != 2:
        raise ValueError(f"{' '.join(pieces)[:40]!r} is not a merge of two pieces")
    return pieces[0], pieces[1]


def _read_optional(path: Path) -> Record:
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> Record:
    record = json.loads(_read_text(path))
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} is not an object")
    return record


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data.startswith(b"\x1f\x8b"):
        with gzip.open(path) as unpacked:
            data = unpacked.read(MAX_BYTES + 1)
    for start, kind in FOREIGN_STARTS.items():
        if data.startswith(start):
            raise _refusal(path, kind)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_BYTES >> 20} MiB")
    return decode(data, f"in {path.name}")


def _refusal(path: Path, kind: str) -> TokenizerError:
    return TokenizerError(f"{shown(path)} is {kind}, not CLIP's; {ADVICE}")


def shown(path: Path) -> str:
    """A path as a message may hold it: in one line, without control characters."""
    return str(path) if str(path).isprintable() else repr(str(path))


def folder_files(vocabulary: Vocabulary) -> dict[str, str]:
    """The files of a diffusers folder's `tokenizer/`, content by name.

    transformers' CLIPTokenizer makes the same ids from them, in version 4 as in version 5.
    """
    flags = {token.content: asdict(token) for token in vocabulary.added}
    roles = {key: getattr(vocabulary, role) for role, key in ROLES.items()}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(vocabulary.ids[text]): token for text, token in flags.items()},
        **roles,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": vocabulary.length,
        "tokenizer_class": "CLIPTokenizer",
    }
    pieces = dict(sorted(vocabulary.ids.items(), key=lambda item: item[1]))
    return {
        "vocab.json": json.dumps(pieces, ensure_ascii=False),
        "merges.txt": "".join(f"{line}\n" for line in ["#version: 0.2", *map(" ".join, vocabulary.merges)]),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "special_tokens_map.json": json.dumps({key: flags[text] for key, text in roles.items()}, indent=2),
    }
