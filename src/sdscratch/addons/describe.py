"""What there is to say of any file of weights: of a model (`checkpoints.describe`), or of an add-on.

This module imports no torch; a LoRA's alphas do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sdscratch.addons.cards import is_card
from sdscratch.addons.control import CONTROLS, open_file, told_of
from sdscratch.addons.control_files import OpenedFiles, opened_files
from sdscratch.addons.embedding import MADE_FOR, Embedding, bundled_embeddings, read_embedding
from sdscratch.addons.kinds.dora import LENGTHS
from sdscratch.addons.kinds.full import BIASES
from sdscratch.addons.kinds.low_rank import LORA
from sdscratch.addons.lora import Module, alpha, kind_of, misfits, rank, read_modules, shapes_of
from sdscratch.addons.lora_names import part_of
from sdscratch.addons.upscaler import read_upscaler
from sdscratch.addons.vae import open_vae, with_vae
from sdscratch.checkpoints.describe import Facts, describe_file, describe_model, is_model
from sdscratch.checkpoints.hashing import AUTOV2, autov3, digest_files
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.source import read_json
from sdscratch.errors import CheckpointError
from sdscratch.models.config import ModelConfig
from sdscratch.tensorfiles.identify import LORA_KINDS, Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

__all__ = ["describe"]

EMBEDDINGS = (Kind.EMBEDDING, Kind.EMBEDDING_SD2, Kind.EMBEDDING_SDXL)
VAES = (Kind.VAE, Kind.DIFFUSERS_VAE)
MOST_TAGS = 20  # trained words that are told, the commonest first


def describe(path: Path, against: str | None = None) -> Facts:
    """The facts of a file or folder; `what` says what it is.

    A whole model is checked in full and hashed; of an add-on the header, the alphas and the hashes are read.

    Args:
        against: a model; `misfits` then lists what of an add-on has no place in it.

    Raises:
        CheckpointError: unreadable, damaged, or a model that is not complete.
    """
    facts: Facts
    if path.is_dir() and (control := _control_folder(path)) is not None:
        return _described_control(control, against)
    if path.is_dir() and not _is_vae_folder(path):
        return describe_model(open_model(path))
    config = open_model(against).config if against is not None else None
    if path.is_dir():
        size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        facts = {"what": "the VAE of a diffusers folder", "told_by": "config.json", "bytes": size}
        return facts | _vae(path, against)
    if is_card(path):
        return _card(path, config)
    file = open_tensors(path)
    identity = identify({name: info.shape for name, info in file.tensors.items()})
    if is_model(file, identity.kind):
        return describe_model(open_model(path))
    facts = {"what": identity.kind.value, "told_by": identity.key}
    if identity.kind in LORA_KINDS:
        facts |= {"lora": _lora(file), "training": training(file.metadata)}
        facts |= {"misfits": misfits(file, config)} if config is not None else {}
    elif identity.kind in EMBEDDINGS:
        facts |= _embedding(read_embedding(path, config.text.width if config else 768), config)
    elif identity.kind in VAES:
        facts |= _vae(path, against)
    elif identity.kind in CONTROLS:
        facts |= _control(opened_files(path), against)
    elif identity.kind is Kind.UPSCALER:
        facts |= _upscaler(path, file)
    return facts | _hashes(path) | describe_file(file)


def _is_vae_folder(path: Path) -> bool:
    return not (path / "unet").exists() and (path / "config.json").is_file()


def _control_folder(path: Path) -> OpenedFiles | None:
    """A diffusers folder of a ControlNet or an adapter alone."""
    if (path / "unet").exists() or not (path / "config.json").is_file():
        return None
    known = read_json(path / "config.json").get("_class_name") in ("ControlNetModel", "T2IAdapter")
    return opened_files(path) if known else None


def _described_control(files: OpenedFiles, against: str | None) -> Facts:
    """The facts of such a folder."""
    identity = files.identity
    facts: Facts = {"what": f"{identity.kind.value}, in a diffusers folder", "told_by": identity.key}
    size = sum(path.stat().st_size for path in files.paths)
    return facts | _control(files, against) | {"hash": files.hash(), "bytes": size}


def _control(files: OpenedFiles, against: str | None) -> Facts:
    """What a control reads and writes, and whether it fits a model."""
    facts: Facts = {"control": told_of(files)}
    if against is None:
        return facts
    try:
        open_file(files, open_model(against))
    except CheckpointError as error:
        return facts | {"misfits": [str(error)]}
    return facts | {"misfits": []}


# --- LoRA ------------------------------------------------------------------------------------------------


def _lora(file: TensorFile) -> Facts:
    """What a LoRA changes, and how much it can: whether it fits a model is not asked."""
    modules, strangers = read_modules(file)
    kinds = Counter(_kind_name(file, module) for module in modules)
    parts = Counter(part_of(module.name) for module in modules)
    convolutions = sum(map(_is_convolution, (shapes_of(file, module) for module in modules)))
    return {
        "network": _network(kinds, convolutions),
        "kinds": dict(kinds.most_common()),
        "ranks": sorted({size for module in modules if (size := rank(file, module))}),
        "alphas": sorted({value for module in modules if (value := alpha(file, module)) is not None}),
        "modules": len(modules),
        "convolutions": convolutions,
        "parts": {part: parts[part] for part in ("text", "unet") if parts[part]},
        "embeddings": {each.name: each.count for each in bundled_embeddings(file)},
        "unknown": strangers,
    }


def _kind_name(file: TensorFile, module: Module) -> str:
    kind = kind_of(file, module)
    name = kind.name if kind is not None else "bias" if module.tensors.keys() & {*BIASES} else "unknown"
    return f"DoRA upon {name}" if module.tensors.keys() & {*LENGTHS} else name


def _network(kinds: Mapping[str, int], convolutions: int) -> str:
    """All kinds in a few words, the commonest first."""
    plain = "LoRA of linear layers and convolutions (LoCon)" if convolutions else "LoRA of linear layers"
    return ", ".join(plain if name == LORA.name else name for name in kinds) or "nothing"


def _is_convolution(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return any(
        len(shape) == 4 and shape[2:] != (1, 1) for role, shape in shapes.items() if role != "oft_blocks"
    )


def training(metadata: Mapping[str, str]) -> Facts:
    """What kohya's scripts note beside the weights (ss_…): base model, resolution, trained words, epochs."""
    names = {
        "base_model": "ss_sd_model_name", "base_hash": "ss_new_sd_model_hash",
        "version": "ss_base_model_version", "title": "modelspec.title",
        "trigger": "modelspec.trigger_phrase", "architecture": "modelspec.architecture",
        "network": "ss_network_module", "rank": "ss_network_dim", "alpha": "ss_network_alpha",
        "clip_skip": "ss_clip_skip", "steps": "ss_steps", "epochs": "ss_epoch",
    }  # fmt: skip
    facts: Facts = {
        ours: metadata[theirs] for ours, theirs in names.items() if metadata.get(theirs, "None") != "None"
    }
    if (resolution := _resolution(metadata)) is not None:
        facts["resolution"] = resolution
    if words := _words(metadata):
        facts["words"] = words
    return facts


def _resolution(metadata: Mapping[str, str]) -> str | None:
    """As "512x512": the scripts write "(512, 512)" or 512."""
    text = metadata.get("ss_resolution") or metadata.get("modelspec.resolution", "")
    numbers = [
        word for word in text.replace("x", " ").replace(",", " ").strip("() ").split() if word.isdigit()
    ]
    return "x".join(numbers * 2 if len(numbers) == 1 else numbers[:2]) or None


def _words(metadata: Mapping[str, str]) -> dict[str, int]:
    """The commonest tags of the training captions, and how often each was there."""
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({tag.strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError, RecursionError):  # somebody else's format
        return {}
    return dict(counts.most_common(MOST_TAGS))


# --- Others ----------------------------------------------------------------------------------------------


def _embedding(embedding: Embedding, config: ModelConfig | None) -> Facts:
    facts: Facts = {
        "embedding": {
            "name": embedding.name,
            "vectors": embedding.count,
            "width": embedding.width,
            "made_for": MADE_FOR.get(embedding.width, "a model of its own shape"),
        }
    }
    if config is not None:
        wrong = embedding.width != config.text.width
        facts["misfits"] = (
            [f"{embedding.width} numbers a vector, where the model's have {config.text.width}"]
            if wrong
            else []
        )
    return facts


def _card(path: Path, config: ModelConfig | None) -> Facts:
    embedding = read_embedding(path, config.text.width if config else 768)
    facts = {"what": "a textual inversion embedding in a picture", "told_by": ""}
    return facts | _embedding(embedding, config) | _hashes(path) | {"bytes": path.stat().st_size}


def _vae(path: Path, against: str | None) -> Facts:
    if against is None:
        return {}
    model = open_model(against)
    try:
        with_vae(model, open_vae(str(path), model.config.autoencoder))
    except CheckpointError as error:
        return {"misfits": [str(error)]}
    return {"misfits": []}


def _upscaler(path: Path, file: TensorFile) -> Facts:
    upscaler = read_upscaler(path, file)
    shape = {name: value for name, value in asdict(upscaler.config).items() if name != "growth"}
    return {"upscaler": {"family": upscaler.family, "scale": upscaler.config.scale, **shape}}


def _hashes(path: Path) -> Facts:
    """As CivitAI counts them: AutoV2 is of the file, AutoV3 of a safetensors file without its header."""
    facts: Facts = {"hash": digest_files([path])[:AUTOV2]}
    if (tensors := autov3(path)) is not None:
        facts["autov3"] = tensors
    return facts
