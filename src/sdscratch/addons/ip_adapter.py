"""IP-Adapters as files, and the image encoder that stands beside them. No torch before they are loaded.

adapter   image_proj.…, and ip_adapter.N.to_k_ip and to_v_ip of each cross-attention
encoder   vision_model.… and visual_projection: the folder `image_encoder` that is published with it
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdscratch.addons.control_files import OpenedFiles, load_weights, opened_files, placed_weights
from sdscratch.checkpoints.layouts.ip_adapter import image_encoder_weights, image_prompt_weights
from sdscratch.checkpoints.layouts.rows import Weight
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.places import control_folders, find_control
from sdscratch.checkpoints.source import Stored
from sdscratch.errors import CheckpointError
from sdscratch.models.config import UNetConfig, unet_groups
from sdscratch.models.image_prompt_config import ImageEncoderConfig, ImagePromptConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ImageEncoderFile", "ImagePromptFile", "cross_attention_widths", "facts_of", "open_image_prompt"]

HEAD_WIDTH = 64  # of the Plus adapter; its files do not say
ENCODER = "image_encoder"
BARE = ("embeddings.", "pre_layrnorm.", "post_layernorm.", "encoder.layers.")  # without `vision_model.`
ACTIVATIONS: Mapping[str, Literal["gelu", "quick_gelu"]] = {"gelu": "gelu", "quick_gelu": "quick_gelu"}
OPENAIS = 1024  # width of ViT-L/14, whose activation is another


@dataclass(frozen=True, eq=False)
class ImageEncoderFile:
    """An image encoder of which nothing is in memory yet."""

    files: OpenedFiles
    config: ImageEncoderConfig
    stored: Mapping[Weight, Stored]
    title: str = "image encoder"
    small: bool = False

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run."""
        from sdscratch.models.image_encoder import ImageEncoder

        return load_weights(lambda: ImageEncoder(self.config), reads(self.stored), device, dtype)


@dataclass(frozen=True, eq=False)
class ImagePromptFile:
    """An IP-Adapter, with its encoder, of which nothing is in memory yet."""

    files: OpenedFiles
    config: ImagePromptConfig
    stored: Mapping[Weight, Stored]
    encoder: ImageEncoderFile
    title: str = "IP-Adapter"
    small: bool = False

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The network, ready to run."""
        from sdscratch.models.ip_adapter import ImagePrompt

        return load_weights(lambda: ImagePrompt(self.config), reads(self.stored), device, dtype)


def reads(stored: Mapping[Weight, Stored]) -> list[tuple[Weight, Any]]:
    """What reads each weight."""
    return [(weight, partial(read, weight, place)) for weight, place in stored.items()]


def read(weight: Weight, stored: Stored) -> Tensor:
    """One weight in our shape."""
    return weight.taken(stored.file.read(stored.name), "ldm")


def open_image_prompt(files: OpenedFiles, model: ModelFiles, encoder: str | None) -> ImagePromptFile:
    """An IP-Adapter for a model, with its encoder.

    Args:
        encoder: a file, a folder or a name; None: it lies where such encoders lie.

    Raises:
        CheckpointError: incomplete, made for another kind of model, or without its encoder.
    """
    config = _config(files, model.config.unet.context, cross_attention_widths(model.config.unet))
    weights = image_prompt_weights(config)
    stored = placed_weights(files, "an IP-Adapter", weights, "ldm", "", model.name)
    sees = open_encoder(files, encoder)
    given = sees.config.projection if config.kind == "classic" else sees.config.width
    if given != config.features:
        raise CheckpointError(
            f"{files.path} is an IP-Adapter for an image encoder that gives {config.features} numbers, but "
            f"{sees.files.path} gives {given}; take the encoder that it was published with"
        )
    return ImagePromptFile(files, config, stored, sees)


def facts_of(files: OpenedFiles) -> dict[str, Any]:
    """What `info` says of one beyond its kind.

    Raises:
        CheckpointError: it is one of faces.
    """
    config = _config(files, 0, ())
    tokens = {"tokens": config.tokens} if config.tokens else {}
    return {"form": config.kind, "features": config.features, **tokens, "needs": "an image encoder"}


def _config(files: OpenedFiles, context: int, widths: tuple[int, ...]) -> ImagePromptConfig:
    """What kind it is, and its sizes, by its tensors.

    Args:
        context: of the model.
        widths: of the model's cross-attentions.
    """
    start = "image_proj."
    shapes = {name.removeprefix(start): s.info.shape for name, s in files.tensors.items() if start in name}

    def side(name: str, axis: int = 0) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) > axis else 0

    if (
        any(name.startswith(("perceiver_resampler.", "norm.")) for name in shapes)
        and "proj.weight" not in shapes
    ):
        raise CheckpointError(
            f"{files.path} is an IP-Adapter of faces, which need a face recogniser; sdscratch has none"
        )
    if "proj.weight" in shapes:
        tokens = side("proj.weight") // max(side("norm.weight"), 1)
        return ImagePromptConfig("classic", side("proj.weight", 1), context, tokens, widths)
    if "proj.3.weight" in shapes:
        return ImagePromptConfig("full", side("proj.0.weight"), context, 0, widths)
    return ImagePromptConfig(
        "plus",
        side("proj_in.weight", 1),
        context,
        side("latents", 1),
        widths,
        side("latents", 2),
        sum(f"layers.{i}.0.to_q.weight" in shapes for i in range(64)),
        side("layers.0.0.to_q.weight") // HEAD_WIDTH,
        HEAD_WIDTH,
        side("layers.0.1.1.weight"),
    )


def cross_attention_widths(config: UNetConfig) -> tuple[int, ...]:
    """Of the U-Net's cross-attentions, in the order of the files: way down, way up, middle."""
    down, middle, up = unet_groups(config)
    return tuple(
        block.outputs
        for groups in (down, up, middle)
        for group in groups
        for block in group
        if block.kind == "transformer"
        for _ in range(config.depth_at(block.level))
    )


# --- The encoder -----------------------------------------------------------------------------------------


def open_encoder(adapter: OpenedFiles, name: str | None) -> ImageEncoderFile:
    """An adapter's image encoder.

    Raises:
        CheckpointError: missing, unreadable, or another kind of network.
    """
    path = next(_places(adapter.path), None) if name is None else find_control(name)
    if path is None:
        raise CheckpointError(
            f"{adapter.path} is an IP-Adapter, and its image encoder is not there; put the folder {ENCODER} "
            "that was published with it beside it or into ./controls, or say encoder=PATH"
        )
    files = opened_files(path)
    own = {_named(each): stored for each, stored in files.tensors.items()}
    own = {each: s for each, s in own.items() if each.startswith(("vision_model.", "visual_projection."))}
    own.pop("vision_model.embeddings.position_ids", None)
    files = replace(files, tensors=own)
    config = _encoder_config(files)
    weights = image_encoder_weights(config)
    stored = placed_weights(files, "an image encoder", weights, "ldm", "", "an IP-Adapter")
    return ImageEncoderFile(files, config, stored)


def _places(adapter: Path) -> Iterator[Path]:
    """Where an encoder may lie: beside the adapter, above it, among the controls."""
    for folder in (adapter.parent, adapter.parent.parent, *control_folders()):
        for path in (folder / ENCODER, folder / f"{ENCODER}.safetensors"):
            if path.is_file() or (path.is_dir() and (path / "config.json").is_file()):
                yield path


def _named(name: str) -> str:
    """A tensor's name with the prefix that some tools leave out."""
    return f"vision_model.{name}" if name.startswith(BARE) else name


def _encoder_config(files: OpenedFiles) -> ImageEncoderConfig:
    """Its sizes, by its tensors; heads and activation by config.json, which is beside the published ones."""
    shapes = {name: stored.info.shape for name, stored in files.tensors.items()}
    patches = shapes.get("vision_model.embeddings.patch_embedding.weight", ())
    places = shapes.get("vision_model.embeddings.position_embedding.weight", (0,))[0]
    projection = shapes.get("visual_projection.weight", ())
    if len(patches) != 4 or len(projection) != 2 or 0 in patches or places < 2:
        raise CheckpointError(f"{files.path} is no CLIP image encoder as IP-Adapters take")
    said = _said(files)
    layers = sum(f"vision_model.encoder.layers.{i}.layer_norm1.weight" in shapes for i in range(256))
    width, heads, activation = patches[0], said.get("num_attention_heads", 16), said.get("hidden_act")
    usual = "quick_gelu" if width == OPENAIS else "gelu"
    known = type(heads) is int and heads > 0 and width % heads == 0
    if not known or activation not in (None, *ACTIVATIONS):
        raise CheckpointError(f"{files.path} describes an image encoder of another kind in its config.json")
    return ImageEncoderConfig(
        width,
        layers,
        heads,
        shapes.get("vision_model.encoder.layers.0.mlp.fc1.weight", (0,))[0],
        projection[0],
        round((places - 1) ** 0.5) * patches[2],
        patches[2],
        ACTIVATIONS[activation or usual],
    )


def _said(files: OpenedFiles) -> Mapping[str, Any]:
    """The folder's config.json, a file's that lies beside it, or nothing."""
    said: Any = files.config
    beside = files.path.with_name("config.json")
    if not said and files.path.is_file() and beside.is_file():
        try:
            said = json.loads(beside.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
    inner = said.get("vision_config", said) if isinstance(said, dict) else {}
    return inner if isinstance(inner, dict) else {}
