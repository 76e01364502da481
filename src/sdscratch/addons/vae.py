"""The autoencoder of any file: alone, in a model, in a diffusers folder; and in the place of a model's own.

    LDM         encoder.… decoder.… quant_conv.… post_quant_conv.…, bare or under first_stage_model. or vae.,
                perhaps with the training's loss.… and model_ema.… beside them
    diffusers   the same in its names, also the older query, key, value and proj_attn; a file, a vae folder
                with config.json, or a whole model's folder

No torch here. The shape is the file's own word (metadata, config.json), else the one that is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.checkpoints.folder_config import autoencoder_config
from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.layouts import Part, Weight, weights
from sdscratch.checkpoints.model import CONFIG, ModelFiles
from sdscratch.checkpoints.names import Layout, is_extra
from sdscratch.checkpoints.places import find_local, missing
from sdscratch.checkpoints.source import Source, Stored, choose_weights, collect, read_json, shards
from sdscratch.errors import CheckpointError
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig
from sdscratch.show import listed, printable
from sdscratch.tensorfiles.identify import Kind, identify
from sdscratch.tensorfiles.reader import TensorFile, open_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SHAPE", "VAE_PARTS", "VaeFile", "open_vae", "with_vae"]

PREFIX = "first_stage_model."
SHAPE = "sdscratch.autoencoder"  # the key of its shape in a file's metadata
VAE_PARTS: tuple[Part, ...] = ("encoder", "decoder")
IN_DIFFUSERS = re.compile(r"(encoder\.down_blocks|decoder\.up_blocks)\.")

# SDXL's autoencoder has SD 1.x's very names and shapes, and another latent space.
SDXL_SCALE = 0.13025
SDXL_HASHES = {"63aeecb90f", "235745af8d"}  # sdxl_vae.safetensors, and the one mended for 16 bits
SDXL_NAME = re.compile(r"sdxl|(?<![a-z])xl(?![a-z])", re.IGNORECASE)
# Files whose autoencoder may be taken; models of another kind have another one.
KINDS = {
    *(Kind.SD1, Kind.SD1_EMA, Kind.SD2, Kind.INPAINTING, Kind.PIX2PIX, Kind.CONTROLNET),
    *(Kind.VAE, Kind.DIFFUSERS_VAE, Kind.UNKNOWN),
}


@dataclass(frozen=True)
class VaeFile:
    """An autoencoder of which nothing is in memory yet."""

    name: str
    path: Path
    config: AutoencoderConfig
    stored: Mapping[Weight, Stored]

    def read(self, weight: Weight) -> Tensor:
        """One weight in our shape, mapped from the file."""
        stored = self.stored[weight]
        return stored.file.read(stored.name).reshape(weight.shape)

    def hash(self) -> str:
        """The fingerprint (`hashing`); reads all of the files the first time."""
        return hash_files(dict.fromkeys(stored.file.path for stored in self.stored.values()))


def open_vae(name: str, like: AutoencoderConfig = SD1.autoencoder) -> VaeFile:
    """Find and open the autoencoder in a file or folder.

    Args:
        name: a path, or a name that is looked up as a model's.
        like: its shape, where the file does not say.

    Raises:
        CheckpointError: missing, unreadable, or no whole autoencoder; names what it is.
    """
    path = find_local(name)
    if path is None:
        raise missing(name)
    source, config = _folder(path, like) if path.is_dir() else _file(path, like)
    return VaeFile(path.stem if path.is_file() else path.resolve().name, path, config, _check(source, config))


def with_vae(files: ModelFiles, vae: VaeFile) -> ModelFiles:
    """A model that encodes and decodes with another autoencoder, in the place of its own, if it has one.

    Raises:
        CheckpointError: it is made for other latents.
    """
    if not any(weight.part in VAE_PARTS for weight in files.stored):  # then it is as the one given
        known, latents = files.config.autoencoder.latent_scale, files.config.unet.latent_channels
        expected = replace(vae.config, latent_scale=known, latent_channels=latents)
        files = replace(files, config=replace(files.config, autoencoder=expected))
    ours, theirs = files.config.autoencoder, vae.config
    for what, own, other in (
        ("channels a latent", ours.latent_channels, theirs.latent_channels),
        ("pixels a latent position", ours.downscale, theirs.downscale),
        ("latent scale", ours.latent_scale, theirs.latent_scale),
    ):
        if own != other:
            whose = "made for SDXL" if other == SDXL_SCALE else "made for another kind of model"
            raise CheckpointError(f"{vae.path} is a VAE {whose}: its {what} is {other}, the model's {own}")
    if ours != theirs:
        raise CheckpointError(
            f"{vae.path} is a VAE of another shape than the model's ({theirs.channels} channels, "
            f"{theirs.multipliers}; the model's {ours.channels}, {ours.multipliers}); take one made for it"
        )
    _refuse_sdxl(vae, ours)
    given = _for(files.config, vae)
    lacking = {weight: stored for weight, stored in given.items() if weight not in files.stored}
    return replace(files, stored={**files.stored, **lacking}, exchanged={**files.exchanged, **given})


def _for(config: ModelConfig, vae: VaeFile) -> dict[Weight, Stored]:
    """The autoencoder's tensors by the model's weights, which are equal to those of the VAE alone."""
    return {weight: vae.stored[weight] for weight in weights(config) if weight.part in VAE_PARTS}


def _refuse_sdxl(vae: VaeFile, ours: AutoencoderConfig) -> None:
    """Shapes do not tell SDXL's autoencoder from SD 1.x's; name and hash do."""
    by_name = SDXL_NAME.search(vae.name)
    if by_name or (ours == SD1.autoencoder and vae.hash() in SDXL_HASHES):
        raise CheckpointError(
            f"{vae.path} is a VAE for SDXL by its {'name' if by_name else 'hash'}, and Stable Diffusion "
            f"1.x's latents are others; take another{', or rename it if it is not' if by_name else ''}"
        )


# --- Where it stands --------------------------------------------------------------------------------------


def _file(path: Path, like: AutoencoderConfig) -> tuple[Source, AutoencoderConfig]:
    file = open_tensors(path)
    config = _said(path, file)
    identity = identify({name: info.shape for name, info in file.tensors.items()})
    if config is None and identity.kind not in KINDS:
        raise CheckpointError(f"{path} is {identity}, and holds no VAE for Stable Diffusion 1.x")
    if any(IN_DIFFUSERS.match(name) for name in file.tensors):
        beside = path.with_name("config.json")
        if config is None and beside.is_file():
            config = _read_config(beside)
        return collect(path, "diffusers", {"vae/": [file]}), config or like
    return _autoencoder_alone(collect(path, "ldm", {"": [file]})), config or like


def _autoencoder_alone(source: Source) -> Source:
    """A model's file without the rest of the model."""
    whole = any(name.startswith(("model.diffusion_model.", "cond_stage_model.")) for name in source.tensors)
    if not whole:
        return source
    tensors = {name: stored for name, stored in source.tensors.items() if name.startswith(PREFIX)}
    return replace(source, tensors=tensors)


def _said(path: Path, file: TensorFile) -> AutoencoderConfig | None:
    """The shape that the file's metadata gives, of an autoencoder alone or of a model."""
    readers: Mapping[str, Callable[[str], str]] = {
        SHAPE: lambda text: f'{{"autoencoder": {text}}}',
        CONFIG: str,
    }
    for key, wrapped in readers.items():
        if key in file.metadata:
            try:
                return ModelConfig.from_json(wrapped(file.metadata[key])).autoencoder
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"{path} has a broken {key} in its metadata: {error}") from None
    return None


def _folder(path: Path, like: AutoencoderConfig) -> tuple[Source, AutoencoderConfig]:
    where = path / "vae" if (path / "vae").is_dir() else path
    chosen = choose_weights("vae", {each.name for each in where.iterdir()})
    if chosen is None:
        raise CheckpointError(
            f"{where} holds no diffusion_pytorch_model.safetensors; name a VAE's folder, a model's, or a file"
        )
    names = shards(where / chosen) if chosen.endswith(".json") else [chosen]
    config = _read_config(where / "config.json") if (where / "config.json").is_file() else like
    return collect(path, "diffusers", {"vae/": [open_tensors(where / name) for name in names]}), config


def _read_config(path: Path) -> AutoencoderConfig:
    record = read_json(path)
    kind = record.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise CheckpointError(f"{path} describes an {printable(kind)}; --vae takes an AutoencoderKL")
    if record.get("scaling_factor") == SDXL_SCALE:
        raise CheckpointError(
            f"{path} describes a VAE for SDXL (scaling_factor {SDXL_SCALE}); "
            "Stable Diffusion 1.x's latents are others"
        )
    return autoencoder_config(record)


def _check(source: Source, config: AutoencoderConfig) -> dict[Weight, Stored]:
    """Every weight's place, after a check that all are there in the right shape, and nothing unknown is."""
    layout: Layout = source.layout
    wanted = [weight for weight in weights(ModelConfig(autoencoder=config)) if weight.part in VAE_PARTS]
    names = {weight.stored(layout)[0]: weight for weight in wanted}
    if not names.keys() & source.tensors.keys():
        raise CheckpointError(f"{source.path} holds no VAE; name a VAE's file, or a model that has one")
    for name, weight in names.items():
        stored = source.tensors.get(name)
        if stored is None or stored.info.shape not in (weight.shape, weight.ldm_shape):
            found = "missing" if stored is None else f"{list(stored.info.shape)}, not {list(weight.shape)}"
            raise CheckpointError(
                f"{source.path} is no whole autoencoder: {weight.ldm} is {found}; "
                "it is incomplete, or made for another kind of model"
            )
    unknown = [
        stored.name
        for name, stored in source.tensors.items()
        if name not in names and not is_extra(name, layout)
    ]
    if unknown:
        raise CheckpointError(
            f"{source.path} holds {listed(unknown)}, which the VAE of Stable Diffusion 1.x does not have"
        )
    return {weight: source.tensors[name] for name, weight in names.items()}
