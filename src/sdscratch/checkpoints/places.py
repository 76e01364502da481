"""Where models and tokenizers are looked for on this machine. This module imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdscratch.checkpoints.peft import weights_in
from sdscratch.errors import CheckpointError
from sdscratch.home import expanded, user_folder
from sdscratch.show import printable

__all__ = [
    "EMBEDDED",
    "cache_folder",
    "control_folders",
    "data_folder",
    "find_control",
    "find_embedding",
    "find_local",
    "find_lora",
    "find_upscaler",
    "is_hub_id",
    "kept",
    "known_embeddings",
    "missing",
    "tokenizer_folder",
]

EMBEDDED = "default"
SUFFIXES = ("", ".safetensors", ".ckpt", ".pt", ".gguf")
KEPT = {  # in the current folder, and in the user's
    "model": ("weights", "models"),
    "vae": ("weights", "models"),
    "lora": ("loras", "loras"),
    "embedding": ("embeddings", "embeddings"),
    "control": ("controls", "controls"),
    "upscaler": ("upscalers", "upscalers"),
}
LORA_SUFFIXES = ("", ".safetensors", ".pt", ".bin")
CONTROL_SUFFIXES = ("", ".safetensors", ".pth", ".ckpt", ".pt", ".bin")
UPSCALER_SUFFIXES = ("", ".safetensors", ".pth", ".pt")
EMBEDDING_SUFFIXES = ("", ".safetensors", ".pt", ".bin", ".png", ".webp")


def cache_folder() -> Path | None:
    """What can be made again: $XDG_CACHE_HOME/sdscratch; None where there is neither that nor a home."""
    return user_folder("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path | None:
    """What the user keeps: $XDG_DATA_HOME/sdscratch, its models in `models`, its LoRAs in `loras`."""
    return user_folder("XDG_DATA_HOME", ".local/share")


def tokenizer_folder() -> Path | None:
    """Where a user puts CLIP's `vocab.json` and `merges.txt` once for all models without a tokenizer."""
    return _own("tokenizer")


def _own(name: str) -> Path | None:
    """One of the user's folders, where there is a place for them."""
    folder = data_folder()
    return None if folder is None else folder / name


def _folders(here: str, own: str) -> list[Path]:
    """Where files of a kind are looked for: in the current folder's, then in the user's own."""
    return [folder for folder in (Path(here), _own(own)) if folder is not None]


def _in_words(folders: list[Path]) -> str:
    """`./loras or in /home/…/loras`, as an error goes on."""
    return " or in ".join([f"./{folders[0]}", *map(str, folders[1:])])


def _embedded() -> Path:
    package = Path(__file__).parents[1]
    name = "weights/default.safetensors"
    for folder in (package, package.parents[1]):  # in an installed wheel, in a checkout
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"the built-in model is missing ({package / name}); install sdscratch again")


def _candidates(name: str) -> Iterator[Path]:
    yield expanded(name)
    for folder in _folders("weights", "models"):
        for suffix in SUFFIXES:
            yield folder / f"{name}{suffix}"


def kept(kind: str) -> list[Path]:
    """The folders where files of a kind are kept: here, and the user's own.

    Args:
        kind: model, vae, lora, embedding, control or upscaler.
    """
    return _folders(*KEPT[kind])


def find_local(name: str) -> Path | None:
    """The file or folder meant by `name`: "default", a path, or a name in ./weights or the user's models.

    Raises:
        CheckpointError: the built-in model is asked for and is not there.
    """
    if name == EMBEDDED:
        return _embedded()
    try:
        return next((path for path in _candidates(name) if path.exists()), None) if name else None
    except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, an unknown ~user
        return None


def find_lora(name: str) -> Path:
    """The file meant by `name`: a path, or a name in ./loras or the user's LoRAs, its suffix left out or not.

    A folder as PEFT or diffusers save one stands for the file of weights in it.

    Raises:
        CheckpointError: it is nowhere, or several LoRAs.
    """
    return _find_addon(name, "LoRA", "loras", LORA_SUFFIXES)


def find_embedding(name: str) -> Path:
    """The same for a textual inversion, in ./embeddings or the user's embeddings.

    Raises:
        CheckpointError: it is nowhere.
    """
    return _find_addon(name, "embedding", "embeddings", EMBEDDING_SUFFIXES)


def find_upscaler(name: str) -> Path:
    """The same for an upscaler, in ./upscalers or the user's upscalers.

    Raises:
        CheckpointError: it is nowhere.
    """
    return _find_addon(name, "upscaler", "upscalers", UPSCALER_SUFFIXES)


def find_control(name: str) -> Path:
    """The file or diffusers folder meant by `name`: a path, or a name in ./controls or the user's controls.

    Raises:
        CheckpointError: it is nowhere.
    """
    folders = control_folders()
    try:
        named = [folder / f"{name}{suffix}" for folder in folders for suffix in CONTROL_SUFFIXES]
        for path in (expanded(name), *named):
            if path.is_file() or (path.is_dir() and (path / "config.json").is_file()):
                return path
    except (ValueError, OSError, RuntimeError):  # as in `find_local`
        pass
    raise CheckpointError(
        f"there is no ControlNet or adapter {printable(name)}: no such file or diffusers folder, here, in "
        f"{_in_words(folders)}; check the name"
    )


def control_folders() -> list[Path]:
    """Where ControlNets and adapters are looked for."""
    return _folders("controls", "controls")


def known_embeddings() -> dict[str, Path]:
    """Every file in ./embeddings and the user's, and below, by its name in a prompt; ours win."""
    found: dict[str, Path] = {}
    for folder in _folders("embeddings", "embeddings"):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in EMBEDDING_SUFFIXES[1:] and path.is_file():
                found.setdefault(path.stem, path)
    return found


def _find_addon(name: str, what: str, kept: str, suffixes: Iterable[str]) -> Path:
    folders = _folders(kept, kept)
    try:
        named = [folder / f"{name}{suffix}" for folder in folders for suffix in suffixes]
        for path in (expanded(name), *named):
            if path.is_file():
                return path
            if path.is_dir() and (weights := weights_in(path)) is not None:
                return weights
    except (ValueError, OSError, RuntimeError):  # as in `find_local`
        pass
    raise CheckpointError(
        f"there is no {what} {printable(name)}: no such file, here, in {_in_words(folders)}; check the name"
    )


def is_hub_id(name: str) -> bool:
    """Whether `name` can be `owner/name` on the hub; a name with a model file's suffix is a path."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) is not None and not name.endswith(
        SUFFIXES[1:]
    )


def missing(name: str) -> CheckpointError:
    """The error for a model that is nowhere."""
    return CheckpointError(
        f"there is no model {name or '(no name)'}: no such file or folder, here, in "
        f"{_in_words(_folders('weights', 'models'))}; check the name"
    )
