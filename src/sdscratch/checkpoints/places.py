"""Where models and tokenizers are looked for on this machine. This module imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.sniff import printable

__all__ = [
    "EMBEDDED",
    "cache_folder",
    "data_folder",
    "find_embedding",
    "find_local",
    "find_lora",
    "is_hub_id",
    "known_embeddings",
    "missing",
    "tokenizer_folder",
]

EMBEDDED = "default"
SUFFIXES = ("", ".safetensors", ".ckpt", ".pt")
LORA_SUFFIXES = ("", ".safetensors", ".pt", ".bin")
EMBEDDING_SUFFIXES = ("", ".safetensors", ".pt", ".bin", ".png", ".webp")


def _user_folder(variable: str, usual: str) -> Path:
    # the XDG base directory specification: a relative path in the variable does not count
    given = Path(os.environ.get(variable, ""))
    return (given if given.is_absolute() else Path.home() / usual) / "sdscratch"


def cache_folder() -> Path:
    """What can be made again: $XDG_CACHE_HOME/sdscratch."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path:
    """What the user keeps: $XDG_DATA_HOME/sdscratch, its models in `models`, its LoRAs in `loras`."""
    return _user_folder("XDG_DATA_HOME", ".local/share")


def tokenizer_folder() -> Path:
    """Where a user puts CLIP's `vocab.json` and `merges.txt` once for all models without a tokenizer."""
    return data_folder() / "tokenizer"


def _embedded() -> Path:
    package = Path(__file__).parents[1]
    name = "weights/default.safetensors"
    for folder in (package, package.parents[1]):  # in an installed wheel, in a checkout
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"the embedded model is missing ({package / name}); install sdscratch again")


def _candidates(name: str) -> Iterator[Path]:
    yield Path(name).expanduser()
    for folder in (Path("weights"), data_folder() / "models"):
        for suffix in SUFFIXES:
            yield folder / f"{name}{suffix}"


def find_local(name: str) -> Path | None:
    """The file or folder meant by `name`: "default", a path, or a name in ./weights or the user's models.

    Raises:
        CheckpointError: the embedded model is asked for and is not there.
    """
    if name == EMBEDDED:
        return _embedded()
    try:
        return next((path for path in _candidates(name) if path.exists()), None) if name else None
    except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, an unknown ~user
        return None


def find_lora(name: str) -> Path:
    """The file meant by `name`: a path, or a name in ./loras or the user's LoRAs, its suffix left out or not.

    Raises:
        CheckpointError: it is nowhere.
    """
    return _find_addon(name, "LoRA", "loras", LORA_SUFFIXES)


def find_embedding(name: str) -> Path:
    """The same for a textual inversion, in ./embeddings or the user's embeddings.

    Raises:
        CheckpointError: it is nowhere.
    """
    return _find_addon(name, "embedding", "embeddings", EMBEDDING_SUFFIXES)


def known_embeddings() -> dict[str, Path]:
    """Every file in ./embeddings and the user's, and below, by its name in a prompt; ours win."""
    found: dict[str, Path] = {}
    for folder in (Path("embeddings"), data_folder() / "embeddings"):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in EMBEDDING_SUFFIXES[1:] and path.is_file():
                found.setdefault(path.stem, path)
    return found


def _find_addon(name: str, what: str, kept: str, suffixes: Iterable[str]) -> Path:
    folders = (Path(kept), data_folder() / kept)
    try:
        named = [folder / f"{name}{suffix}" for folder in folders for suffix in suffixes]
        return next(path for path in (Path(name).expanduser(), *named) if path.is_file())
    except (StopIteration, ValueError, OSError, RuntimeError):  # as in `find_local`
        raise CheckpointError(
            f"there is no {what} {printable(name)}: no such file, here, in ./{kept} or in {folders[1]}; "
            "check the name"
        ) from None


def is_hub_id(name: str) -> bool:
    """Whether `name` can be `owner/name` on the hub; a name with a model file's suffix is a path."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) is not None and not name.endswith(
        SUFFIXES[1:]
    )


def missing(name: str) -> CheckpointError:
    """The error for a model that is nowhere."""
    return CheckpointError(
        f"there is no model {name or '(no name)'}: no such file or folder, here, in ./weights "
        f"or in {data_folder() / 'models'}; check the name"
    )
