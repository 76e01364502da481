"""Where a model's tensors lie: in one file of LDM layout, or in a diffusers folder; under one set of names.

Nothing is read here but headers and JSON. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdscratch.checkpoints.names import Layout, canonical
from sdscratch.errors import CheckpointError
from sdscratch.show import printable
from sdscratch.tensorfiles.header import TensorInfo
from sdscratch.tensorfiles.reader import TensorFile, open_tensors
from sdscratch.texts import decode

__all__ = [
    "COMPONENTS",
    "CONFIGS",
    "WHOLE_VAE",
    "Source",
    "Stored",
    "choose_weights",
    "collect",
    "is_tiny",
    "open_folder",
    "read_json",
    "shards",
    "vae_in",
]

COMPONENTS = ("text_encoder", "unet", "vae")
WHOLE_VAE = "vae_large"  # where SDXS's folders have it, whose `vae` is a tiny autoencoder
CONFIGS = tuple(f"{component}/config.json" for component in COMPONENTS)
KNOWN_COMPONENTS = {
    *COMPONENTS,
    "tokenizer",
    "scheduler",
    WHOLE_VAE,
    "safety_checker",
    "feature_extractor",
    "image_encoder",
}

# Names that the weights of a component may have, the one that diffusers would take first.
STEMS = {
    "text_encoder": (("model", ".safetensors"), ("pytorch_model", ".bin")),
    "unet": (("diffusion_pytorch_model", ".safetensors"), ("diffusion_pytorch_model", ".bin")),
    "vae": (("diffusion_pytorch_model", ".safetensors"), ("diffusion_pytorch_model", ".bin")),
    WHOLE_VAE: (("diffusion_pytorch_model", ".safetensors"), ("diffusion_pytorch_model", ".bin")),
}
VARIANTS = ("", ".fp16", ".bf16", ".non_ema")
PATTERNS = (
    "{stem}{variant}{suffix}",
    "{stem}{suffix}.index{variant}.json",
    "{stem}{variant}{suffix}.index.json",
)

MAX_JSON = 16 << 20


@dataclass(frozen=True)
class Stored:
    """One tensor in one of the files, under the name that the file gives it."""

    file: TensorFile
    name: str

    @property
    def info(self) -> TensorInfo:
        """Its type and shape."""
        return self.file.tensors[self.name]


@dataclass(frozen=True)
class Source:
    """All tensors of a model, by the names of `layouts` where they are weights."""

    path: Path
    layout: Layout
    tensors: Mapping[str, Stored]  # weights, averages, buffers and whatever nobody knows
    ignored: tuple[str, ...]  # what is no tensor
    metadata: Mapping[str, str]


def collect(path: Path, layout: Layout, files: Mapping[str, list[TensorFile]]) -> Source:
    """Files as one source.

    Args:
        files: by what stands in front of their names ("" or "unet/").

    Raises:
        CheckpointError: two tensors are the same weight.
    """
    tensors: dict[str, Stored] = {}
    ignored: list[str] = []
    metadata: dict[str, str] = {}
    for prefix, file in ((prefix, file) for prefix, group in files.items() for file in group):
        ignored += [prefix + name for name in file.ignored]
        metadata |= file.metadata
        for stored in file.tensors:
            name = canonical(prefix + stored, layout)
            if name in tensors:
                both = " and ".join(map(printable, (tensors[name].name, stored)))
                raise CheckpointError(f"{path} holds the same weight twice, as {both}; it is damaged")
            tensors[name] = Stored(file, stored)
    return Source(path, layout, tensors, tuple(ignored), metadata)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: missing, unreadable, or something else.
    """
    try:
        with path.open("rb") as file:
            record = json.loads(decode(file.read(MAX_JSON), "in it"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; the folder is incomplete") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON: {printable(error)}; download it again") from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again")
    return record


def choose_weights(component: str, names: Collection[str]) -> str | None:
    """Which of a component folder's files to read: the weights, or the index of their shards."""
    return next((name for name in _candidates(component) if name in names), None)


def _candidates(component: str) -> Iterator[str]:
    for variant in VARIANTS:
        for stem, suffix in STEMS[component]:
            for pattern in PATTERNS:
                yield pattern.format(stem=stem, variant=variant, suffix=suffix)


def shards(index: Path) -> list[str]:
    """The files that an index names, all of them beside it.

    Raises:
        CheckpointError: it names none, or one elsewhere.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(f"{index} maps no weights to files; download it again")
    for name in table.values():
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(f"{index} leads out of its folder, to {printable(name)}; do not trust it")
    return sorted(set(table.values()))


def is_tiny(config: Path) -> bool:
    """Whether a VAE's config.json is a tiny autoencoder's."""
    return config.is_file() and read_json(config).get("_class_name") == "AutoencoderTiny"


def vae_in(folder: Path) -> str:
    """The name of the folder in a diffusers folder that holds its VAE, or should."""
    return WHOLE_VAE if is_tiny(folder / "vae/config.json") else "vae"


def open_folder(folder: Path, *, without_vae: bool = False) -> Source:
    """The weights of a diffusers folder.

    Args:
        without_vae: it may lack one.

    Raises:
        CheckpointError: a component is missing, unreadable, or not Stable Diffusion 1.x's.
    """
    _check_index(folder)
    files = {}
    for component in COMPONENTS:
        where = folder / (vae_in(folder) if component == "vae" else component)
        names = {path.name for path in where.iterdir()} if where.is_dir() else set()
        chosen = choose_weights(component, names)
        if chosen is None and component == "vae" and without_vae:
            continue
        if chosen is None:
            expected = "".join(STEMS[component][0])
            more = ", or give a VAE with --vae FILE" if component == "vae" else ""
            raise CheckpointError(
                f"{folder} holds no {where.name}/{expected}; name a complete diffusers folder{more}"
            )
        parts = shards(where / chosen) if chosen.endswith(".json") else [chosen]
        files[f"{component}/"] = [open_tensors(where / name) for name in parts]
    return collect(folder, "diffusers", files)


def _check_index(folder: Path) -> None:
    path = folder / "model_index.json"
    if not path.exists():  # a folder of parts loads as well
        return
    index = read_json(path)
    parts = {name for name, value in index.items() if not name.startswith("_") and _is_component(value)}
    if foreign := sorted(parts - KNOWN_COMPONENTS):
        kind = printable(index.get("_class_name", "another pipeline"))
        raise CheckpointError(
            f"{folder} holds a {kind} (it has {', '.join(map(printable, foreign))}); "
            "sdscratch reads Stable Diffusion 1.x"
        )


def _is_component(value: Any) -> bool:
    """Components are written as [library, class]; settings as plain values, absent components as nulls."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)
