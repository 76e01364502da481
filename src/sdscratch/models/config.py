"""The shape of a model as frozen values: every width and depth of the three networks, and the noise schedule.

`SD1` is Stable Diffusion 1.x; the embedded model is another value of the same classes. A configuration
travels inside a checkpoint's metadata as JSON (`to_json`, `from_json`), so that one file is one model.
This module imports no torch: `sdscratch info` reads shapes without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

__all__ = [
    "SD1",
    "AutoencoderConfig",
    "Block",
    "ModelConfig",
    "ScheduleConfig",
    "TextEncoderConfig",
    "TinyDecoderConfig",
    "UNetConfig",
    "unet_groups",
]


@dataclass(frozen=True)
class TextEncoderConfig:
    """CLIP's text transformer (Radford et al. 2021, section 2.4)."""

    vocabulary: int = 49408
    length: int = 77  # tokens a prompt is padded to, start and end token included
    width: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"


@dataclass(frozen=True)
class UNetConfig:
    """The noise-prediction network (Rombach et al. 2022, section 3.2 and appendix E)."""

    latent_channels: int = 4
    channels: int = 320  # width of the first level; level i is channels · multipliers[i]
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    attends: tuple[bool, ...] = (True, True, True, False)  # which levels have transformers
    residual_blocks: int = 2  # a level, on the way down; one more on the way up
    heads: int = 8  # at every attention, whatever its width
    context: int = 768  # width of the text encoder's output
    norm_groups: int = 32


@dataclass(frozen=True)
class AutoencoderConfig:
    """The picture's encoder and decoder (Rombach et al. 2022, section 3.1; Esser et al. 2021)."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2  # a level in the encoder; one more in the decoder
    latent_channels: int = 4
    latent_scale: float = 0.18215  # the U-Net sees latents multiplied by this
    norm_groups: int = 32

    @property
    def downscale(self) -> int:
        """How many pixels one latent position stands for along each side."""
        return 1 << (len(self.multipliers) - 1)


@dataclass(frozen=True)
class TinyDecoderConfig:
    """A tiny decoder (`models.taesd`), which is no part of a model; these are TAESD's own sizes."""

    latent_channels: int = 4
    channels: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)  # at each resolution, the lowest first

    @property
    def downscale(self) -> int:
        """How many pixels one latent position stands for along each side."""
        return 1 << (len(self.blocks) - 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """The forward process (Ho et al. 2020, section 4, with LDM's betas) and what the U-Net predicts of it."""

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["epsilon", "v"] = "epsilon"


@dataclass(frozen=True)
class ModelConfig:
    """One model: text encoder, U-Net, autoencoder and schedule."""

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def to_json(self) -> str:
        """The configuration as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: not JSON, or not a configuration (an unknown key, a value of another type).
        """
        record = json.loads(text)
        parts = {f.name: f.default_factory for f in fields(cls)}  # each factory is the part's class
        if not isinstance(record, dict) or record.keys() - parts.keys():
            raise ValueError(f"expected the keys {', '.join(parts)}")
        return cls(**{name: _from_record(parts[name], value) for name, value in record.items()})


SD1 = ModelConfig()


def _from_record(cls: Any, record: Mapping[str, Any]) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{cls.__name__} is not an object")
    defaults = cls()
    values: dict[str, Any] = {}
    for name, value in record.items():
        if not hasattr(defaults, name) or name not in {f.name for f in fields(cls)}:
            raise ValueError(f"{cls.__name__} has no field {name}")
        values[name] = _checked(f"{cls.__name__}.{name}", getattr(defaults, name), value)
    return cls(**values)


def _checked(name: str, default: object, value: Any) -> Any:
    """`value` in the type of `default`; JSON knows no tuples and writes 1.0 as it likes."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_checked(name, default[0], item) for item in value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} is {value!r}, expected {type(default).__name__}")
    return value


@dataclass(frozen=True)
class Block:
    """One block of the U-Net: what it is, and how many channels go in and come out."""

    kind: Literal["conv", "residual", "transformer", "down", "up"]
    inputs: int
    outputs: int


def unet_groups(config: UNetConfig) -> tuple[list[list[Block]], list[list[Block]], list[list[Block]]]:
    """The topology of the U-Net as a table: groups of blocks on the way down, in the middle, on the way up.

    The output of every group on the way down is kept as a skip; every group on the way up takes the newest
    one left and begins by concatenating it. For SD 1.x: 12 groups, 1, and 12, numbered as in LDM's files
    (`input_blocks.N.M`, `middle_block.M`, `output_blocks.N.M`: group N, block M).
    """
    widths = [config.channels * m for m in config.multipliers]
    last = len(widths) - 1

    def transformer(level: int) -> list[Block]:
        return [Block("transformer", widths[level], widths[level])] if config.attends[level] else []

    down = [[Block("conv", config.latent_channels, widths[0])]]
    skips = [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(config.residual_blocks):
            down.append([Block("residual", skips[-1], width), *transformer(level)])
            skips.append(width)
        if level < last:
            down.append([Block("down", width, width)])
            skips.append(width)

    width = widths[-1]
    middle = [
        [Block("residual", width, width), Block("transformer", width, width), Block("residual", width, width)]
    ]

    up: list[list[Block]] = []
    current = width
    for level in reversed(range(len(widths))):
        for index in range(config.residual_blocks + 1):
            group = [Block("residual", current + skips.pop(), widths[level]), *transformer(level)]
            current = widths[level]
            if level > 0 and index == config.residual_blocks:
                group.append(Block("up", current, current))
            up.append(group)
    return down, middle, up
