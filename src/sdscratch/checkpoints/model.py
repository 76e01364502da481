"""Any Stable Diffusion 1.x model as files: what is in it, checked in full before anything of it is loaded.

`open_model` reads headers only. A network is built on the meta device, where nothing is allocated or
initialised, and its tensors are then mapped, cast and put in place one by one, the file's pages given back
at once: beside the finished network never more than one tensor is in memory, and what a task does not use is
never read.
torch is imported by `ModelFiles.read` and `ModelFiles.load` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.checkpoints import hub, places
from sdscratch.checkpoints.changes import Change
from sdscratch.checkpoints.folder_config import from_folder
from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts import Part, Weight, by_stored_name, parts_in
from sdscratch.checkpoints.layouts.distilled import without_gaps, without_some
from sdscratch.checkpoints.names import Layout, ema_name, flagged, is_extra
from sdscratch.checkpoints.shapes import SHAPES
from sdscratch.checkpoints.source import CONFIGS, Source, Stored, collect, open_folder, read_json, vae_in
from sdscratch.checkpoints.tokenizers import find_tokenizer, own_tokenizer
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.models.config import ModelConfig, UNetConfig
from sdscratch.options import SD1_DEFAULTS, Defaults, GenerateOptions, ResolvedOptions, changed
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.header import FLOATS, TensorInfo
from sdscratch.tensorfiles.identify import LORA_KINDS, identify
from sdscratch.tensorfiles.reader import open_tensors
from sdscratch.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["CONFIG", "DEFAULTS", "ModelFiles", "Part", "open_model"]

# The parts that files come without, what people call them, and what they are for.
PARTS: tuple[tuple[frozenset[Part], str, str], ...] = (
    (frozenset({"encoder", "decoder"}), "VAE", "makes pictures of what the U-Net computes"),
    (frozenset({"text"}), "text encoder", "reads the prompt"),
    (frozenset({"unet"}), "U-Net", "does the drawing"),
)
CONFIG, DEFAULTS = "sdscratch.config", "sdscratch.defaults"  # metadata that make a single file one model


@dataclass(frozen=True)
class ModelFiles:
    """A model whose every weight is where it should be; nothing of it is in memory yet."""

    name: str  # what people call it: a file's name without suffix, a folder's, "default"
    path: Path
    layout: Layout
    config: ModelConfig
    defaults: Defaults
    stored: Mapping[Weight, Stored]
    dropped: tuple[str, ...]  # what the files hold besides and nobody needs
    has_ema: bool  # an LDM file that keeps averages of the U-Net beside it
    ema: bool  # they are what is read
    metadata: Mapping[str, str]
    given_tokenizer: str | None = None
    changes: tuple[Change, ...] = ()  # what `read` does to the weights, one after another
    exchanged: Mapping[Weight, Stored] = field(default_factory=dict)  # weights of other files, read instead

    @cached_property
    def own_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that came with the model.

        Raises:
            TokenizerError: it is broken.
        """
        return own_tokenizer(self.path, self.metadata)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The one given, else the model's own, else one from beside it, from the user's folder, from the hub.

        Raises:
            TokenizerError: there is none, it is broken, or its ids go beyond the text encoder's table.
        """
        own = None if self.given_tokenizer is not None else self.own_tokenizer  # a broken one can be replaced
        return find_tokenizer(self.path, self.config.text, self.given_tokenizer, own)

    def resolve(self, options: GenerateOptions, seed: int) -> ResolvedOptions:
        """What was asked for, with this model's defaults where nothing was, and `seed` where none was.

        Raises:
            UsageError: what this model cannot do.
        """
        if options.strength is None and self.config.unet.beside == "picture":
            options = changed(options, strength=1.0)  # what it follows stands beside the noise
        layers, resolved = self.config.text.layers, options.resolve(self.defaults, seed)
        if resolved.clip_skip >= layers:  # in our own count, whichever tool's was asked in
            raise UsageError(f"clip-skip is {options.clip_skip}, but the text encoder has {layers} layers")
        return resolved

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its networks."""
        return parts_in(self.config)

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of the files the first time."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        own = (stored for weight, stored in self.stored.items() if self.exchanged.get(weight) is not stored)
        return hash_files(dict.fromkeys(stored.file.path for stored in own))

    def info(self, weight: Weight) -> TensorInfo:
        """A weight's type in its file, and its shape there."""
        return self.where(weight).info

    def where(self, weight: Weight) -> Stored:
        """Where a weight is read from: the model's own files, or what was put in their place."""
        return self.exchanged.get(weight) or self.stored[weight]

    def read(self, weight: Weight) -> Tensor:
        """A weight in our shape on the CPU: in the file's type and mapped from it, or changed.

        Raises:
            CheckpointError: an add-on holds NaN or infinity.
        """
        stored = self.where(weight)
        tensor = weight.taken(stored.file.read(stored.name), self.layout)
        for change in self.changes:
            tensor = change.apply(weight, tensor)
        return tensor

    def load(self, part: Part, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
        """One network, ready to run: in eval mode, without gradients, its convolutions in channels_last.

        Raises:
            CheckpointError: the file has changed since it was opened.
        """
        from sdscratch.checkpoints.eight_bits import begun
        from sdscratch.checkpoints.empty import placed

        (network, weights), state = begun(self, part, self._in_order((part,)), device), {}
        for weight in weights:
            tensor = self.read(weight)
            state[weight.name] = placed(tensor, device, dtype)
            if state[weight.name].data_ptr() != tensor.data_ptr():  # copied: nothing of the file is needed
                self.where(weight).file.release(self.where(weight).name)
        network.load_state_dict(state, strict=True, assign=True)
        return network.eval().requires_grad_(False)

    def read_ahead(self, parts: Iterable[Part]) -> None:
        """Have the system fetch what these networks are made of, while something else is done."""
        for file, group in groupby(self._in_order(parts), lambda weight: self.where(weight).file):
            file.read_ahead(self.where(weight).name for weight in group)

    def _in_order(self, parts: Iterable[Part]) -> list[Weight]:
        """The networks' weights, one network after another, as they lie in their files: disks like that."""
        order = list(parts)

        def place(weight: Weight) -> tuple[int, str, int]:
            stored = self.where(weight)
            return order.index(weight.part), str(stored.file.path), stored.file.start(stored.name)

        return sorted((weight for weight in self.stored if weight.part in order), key=place)


def open_model(
    name: str | Path,
    *,
    ema: bool = False,
    tokenizer: str | None = None,
    without_vae: bool = False,
) -> ModelFiles:
    """Find a model, and check that it is one.

    Args:
        name: "default" (the built-in model), a file, a diffusers folder, a name in ./weights or the user's
            models, or, if nothing here is called so, a hub id `owner/name`.
        ema: take the moving averages of the U-Net's weights, which some LDM files keep beside them.
        tokenizer: a tokenizer file or folder, instead of the model's own.
        without_vae: it may lack an autoencoder, because it will be given one (`addons.vae.with_vae`).

    Raises:
        CheckpointError: missing, unreadable, or no complete Stable Diffusion 1.x model; names what is wrong.
        TokenizerError: the tokenizer given is missing or broken.
    """
    path = _find(str(name))
    source = (
        open_folder(path, without_vae=without_vae)
        if path.is_dir()
        else collect(path, "ldm", {"": [open_tensors(path)]})
    )
    config = _config(source)
    if source.layout == "ldm" and CONFIG not in source.metadata:
        config, source = _with_less(config, source)
    stored = _check(source, config, without_vae=without_vae)
    averages = {w: source.tensors.get(ema_name(w.ldm) or "") for w in stored if w.part == "unet"}
    has_ema = source.layout == "ldm" and None not in averages.values()
    if ema:
        if not has_ema:
            raise CheckpointError(f"{path} holds no moving averages (EMA) of its weights; leave out --ema")
        stored |= {weight: average for weight, average in averages.items() if average is not None}
    used = {id(tensor) for tensor in stored.values()}
    files = ModelFiles(
        name=path.stem if path.is_file() else path.resolve().name,
        path=path,
        layout=source.layout,
        config=config,
        defaults=_defaults(source, config),
        stored=stored,
        dropped=(*source.ignored, *(name for name, t in source.tensors.items() if id(t) not in used)),
        has_ema=has_ema,
        ema=ema,
        metadata=source.metadata,
        given_tokenizer=tokenizer,
    )
    if tokenizer is not None:
        _ = files.tokenizer  # a wrong path is said before anything slow begins
    return files


def _find(name: str) -> Path:
    local = places.find_local(name)
    if local is not None:
        return local
    if places.is_hub_id(name):
        return hub.fetch_model(name)
    raise places.missing(name)


def _config(source: Source) -> ModelConfig:
    """The model's shape: by a folder's JSON, by the metadata, else SD 1.x's, which the check proves."""
    if source.layout == "diffusers":
        text, unet = (read_json(source.path / name) for name in CONFIGS[:2])
        described = source.path / vae_in(source.path) / "config.json"
        has_vae = any(name.startswith("vae/") for name in source.tensors)
        vae = read_json(described) if has_vae or described.exists() else None
        scheduler = source.path / "scheduler" / "scheduler_config.json"
        return from_folder(unet, vae, text, read_json(scheduler) if scheduler.exists() else None)
    if CONFIG not in source.metadata:
        identity = identify({stored.name: stored.info.shape for stored in source.tensors.values()})
        if identity.kind not in SHAPES:
            an_addon = identity.kind in LORA_KINDS
            what_now = "give it with --lora" if an_addon else "sdscratch draws with Stable Diffusion 1.x"
            raise CheckpointError(f"{source.path} is {identity}; {what_now}")
        return replace(SHAPES[identity.kind], schedule=flagged(source.tensors))
    try:
        return ModelConfig.from_json(source.metadata[CONFIG])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source.path} has a broken {CONFIG} in its metadata: {error}") from None


def _with_less(config: ModelConfig, source: Source) -> tuple[ModelConfig, Source]:
    """The same for a distilled U-Net, whose shape and numbers are read off its tensors."""
    shapes = {name: stored.info.shape for name, stored in source.tensors.items()}
    unet = without_some(config.unet, shapes)
    if unet.residual_blocks == config.unet.residual_blocks:
        return replace(config, unet=unet), source
    names = without_gaps(source.tensors)
    tensors = {names[name]: stored for name, stored in source.tensors.items()}
    return replace(config, unet=unet), replace(source, tensors=tensors)


def _defaults(source: Source, config: ModelConfig) -> Defaults:
    """What the model would like to be asked for: its metadata's word, else its size and SD 1.x's habits."""
    if DEFAULTS in source.metadata:
        try:
            return _parse_defaults(json.loads(source.metadata[DEFAULTS]))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{source.path} has broken {DEFAULTS} in its metadata: {error}") from None
    if source.layout == "diffusers":
        latent_side = read_json(source.path / "unet" / "config.json").get("sample_size")
        if type(latent_side) is int and 8 <= latent_side <= 512:
            side = latent_side * config.autoencoder.downscale
            return replace(_habits(config.unet), width=side, height=side)
    return _habits(config.unet)


def _habits(unet: UNetConfig) -> Defaults:
    """What a U-Net's shape says of how it was trained to be asked."""
    if unet.guidance is not None:  # LCM: Luo et al. 2023; steps and scale are diffusers' own defaults for it
        return Defaults(steps=4, cfg_scale=8.5, sampler="lcm")
    if not unet.middle and not unet.attends[0]:  # SDXS: Song et al. 2024, one step
        return Defaults(steps=1, cfg_scale=1.0, sampler="euler", scheduler="trailing")
    return SD1_DEFAULTS


def _parse_defaults(record: Any) -> Defaults:
    kinds = {"width": int, "height": int, "steps": int, "cfg_scale": float, "sampler": str}
    if not isinstance(record, dict) or record.keys() - {f.name for f in fields(Defaults)}:
        raise ValueError("expected an object of " + ", ".join(f.name for f in fields(Defaults)))
    for name, value in record.items():
        if (
            name in kinds
            and type(value) is not kinds[name]
            and not (kinds[name] is float and type(value) is int)
        ):
            raise ValueError(f"{name} is {value!r}")
    if not isinstance(record.get("scheduler"), str | None):
        raise ValueError(f"scheduler is {record['scheduler']!r}")
    GenerateOptions(**record)  # refuses what is out of range
    return Defaults(**record)


def _refuse_without_part(source: Source, there: Set[Part]) -> None:
    """Name a whole part that is not there: some checkpoints come without their VAE, above all.

    Raises:
        CheckpointError: one is missing.
    """
    for parts, name, purpose in PARTS:
        if not parts & there:
            given = ", or give one with --vae FILE" if name == "VAE" else ""
            raise CheckpointError(
                f"{source.path} has no {name}, which {purpose}; no picture can be drawn without one, so take "
                f"a copy of the model with its {name} inside{given}"
            )


def _check(source: Source, config: ModelConfig, *, without_vae: bool = False) -> dict[Weight, Stored]:
    """Every weight's place, after a check that all are there in the right shape, and nothing unknown is."""
    expected = by_stored_name(config, source.layout)
    if without_vae:
        of_vae = {name for name, [weight, *_] in expected.items() if weight.part in ("encoder", "decoder")}
        if not of_vae & source.tensors.keys():
            expected = {name: sharing for name, sharing in expected.items() if name not in of_vae}
    if missing := [name for name in expected if name not in source.tensors]:
        there = {weight.part for name in expected if name in source.tensors for weight in expected[name]}
        _refuse_without_part(source, there)
        raise CheckpointError(f"{source.path} lacks {listed(missing)}; the model is incomplete")
    unknown = [name for name in source.tensors if name not in expected and not is_extra(name, source.layout)]
    if unknown:
        raise CheckpointError(
            f"{source.path} holds {listed(unknown)}, which Stable Diffusion 1.x does not have; "
            "it is another kind of model"
        )
    stored = {weight: source.tensors[name] for name, sharing in expected.items() for weight in sharing}
    for weight, tensor in stored.items():
        if not weight.fits(tensor.info.shape, source.layout) or tensor.info.dtype not in FLOATS:
            raise CheckpointError(
                f"{source.path} holds {printable(tensor.name)} as {tensor.info.dtype} "
                f"{list(tensor.info.shape)}, expected {list(weight.stored(source.layout)[1])}; "
                "it is another kind of model"
            )
    return stored
