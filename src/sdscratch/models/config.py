"""The shape of a model as frozen values: every width and depth of the three networks, and the noise schedule.

`SD1` is Stable Diffusion 1.x; the built-in model is another value of the same classes. A configuration
travels inside a checkpoint's metadata as JSON (`to_json`, `from_json`), so that one file is one model.
This module imports no torch: `sdscratch info` reads shapes without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

__all__ = [
    *("SD1", "AdapterConfig", "AutoencoderConfig", "Block", "CompactConfig"),
    *("ControlNetConfig", "ModelConfig", "RRDBConfig", "ScheduleConfig", "TextEncoderConfig"),
    *("TinyDecoderConfig", "UNetConfig", "UpscalerConfig", "unet_groups"),
]


PerLevel = int | tuple[int, ...]  # one number for all levels, or one each


@dataclass(frozen=True)
class TextEncoderConfig:
    """CLIP's text transformer (Radford et al. 2021, section 2.4), OpenAI's or OpenCLIP's."""

    vocabulary: int = 49408
    length: int = 77  # tokens a prompt is padded to, start and end token included
    width: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    family: Literal["clip", "openclip"] = "clip"  # whose names and shapes LDM's files have for it
    skip: int = 0  # last layers that the context leaves out: 1 in Stable Diffusion 2.x and XL
    normed: bool = True  # whether the final norm is applied to the context; not in XL
    projection: int | None = None  # width of a prompt's pooled vector, of those that have one


@dataclass(frozen=True)
class UNetConfig:
    """The noise-prediction network (Rombach et al. 2022, section 3.2 and appendix E).

    Stable Diffusion 2.x (`head_width` 64, linear projections) and XL (deeper transformers, an added
    embedding; Podell et al. 2023, section 2.1 and 2.2) are values of it too.
    """

    in_channels: int = 4  # 9 of inpainting models, 8 of those that follow instructions
    out_channels: int = 4
    channels: int = 320  # width of the first level; level i is channels · multipliers[i]
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    attends: tuple[bool, ...] = (True, True, True, False)  # which levels have transformers
    residual_blocks: int = 2  # a level, on the way down; one more on the way up
    heads: PerLevel = 8  # at every attention, whatever its width
    head_width: PerLevel | None = None  # or so many numbers a head, whatever their count
    depth: PerLevel = 1  # blocks of a transformer; the middle's is as deep as the last level's
    projection: Literal["conv", "linear"] = "conv"  # into and out of a transformer: 1×1 convolution or matrix
    context: int = 768  # width of the text encoder's output
    norm_groups: int = 32
    middle: bool = True  # whether there are blocks between the way down and the way up
    guidance: int | None = None  # sinusoids by which it is told the guidance, of models distilled under it
    pooled: int | None = None  # width of the pooled prompt that is added to the time, with the sizes
    sizes: int = 6  # numbers of these
    size_width: int = 256  # sinusoids that each of them becomes

    @property
    def latent_channels(self) -> int:
        """Channels of the latent that is denoised, without those that stand beside it."""
        return self.out_channels

    @property
    def beside(self) -> str | None:
        """What stands beside the latent: a "mask" and a masked picture, or a "picture" to change."""
        return {1: "mask", 0: "picture"}.get(self.in_channels - 2 * self.out_channels)

    def heads_at(self, level: int) -> int:
        """How many heads attention has at a level; the middle belongs to the last."""
        if self.head_width is None:
            return at_level(self.heads, level)
        return self.channels * self.multipliers[level] // at_level(self.head_width, level)

    def depth_at(self, level: int) -> int:
        """How many blocks a transformer has at a level."""
        return at_level(self.depth, level)


def at_level(value: PerLevel, level: int) -> int:
    """What holds at a level."""
    return value if isinstance(value, int) else value[level]


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
class RRDBConfig:
    """ESRGAN's network (`models.esrgan`)."""

    inputs: int = 3  # channels of a picture, before `unshuffle`
    outputs: int = 3
    channels: int = 64
    growth: int = 32  # channels that each convolution of a dense block adds
    blocks: int = 23
    upsamplings: int = 2  # by two
    unshuffle: int = 1  # the side of the squares of pixels that are folded into channels first

    @property
    def scale(self) -> int:
        """How many times larger pictures become."""
        return (1 << self.upsamplings) // self.unshuffle


@dataclass(frozen=True)
class CompactConfig:
    """Real-ESRGAN's compact network (`models.esrgan`)."""

    inputs: int = 3
    channels: int = 64
    convolutions: int = 16  # between the first and the last
    scale: int = 4


UpscalerConfig = RRDBConfig | CompactConfig


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
class ControlNetConfig:
    """A ControlNet (`models.controlnet`) upon a U-Net; the sizes are those of the published ones."""

    unet: UNetConfig = field(default_factory=UNetConfig)  # with the latent's channels alone
    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)  # of the hint's encoder, each half as large
    bgr: bool = False  # whether it was trained on hints with blue first
    pooled: bool = False  # whether only the means of its outputs count: what "shuffle" was trained with


@dataclass(frozen=True)
class AdapterConfig:
    """A T2I-Adapter (`models.t2i_adapter`); the sizes are those of the published ones."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one a level of the U-Net
    hint_channels: int = 3
    blocks: int = 2  # residual blocks a level
    light: bool = False
    kernel: int = 1  # of a block's second convolution
    downscale: int = 8  # pixels a position of the first level

    @property
    def inputs(self) -> int:
        """Numbers of the hint a position of the first level."""
        return self.hint_channels * self.downscale**2


@dataclass(frozen=True)
class ScheduleConfig:
    """The forward process (Ho et al. 2020, section 4, with LDM's betas) and what the U-Net predicts of it."""

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["epsilon", "v"] = "epsilon"
    zero_snr: bool = False  # nothing is left of the picture at the last timestep (Lin et al. 2023)


@dataclass(frozen=True)
class ModelConfig:
    """One model: text encoder, U-Net, autoencoder and schedule."""

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    more_texts: tuple[TextEncoderConfig, ...] = ()  # whose outputs stand beside the first's

    @property
    def texts(self) -> tuple[TextEncoderConfig, ...]:
        """All text encoders; a token's context is what they say of it, one after another."""
        return (self.text, *self.more_texts)

    def to_json(self) -> str:
        """The configuration as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; what is not named has its default.

        Raises:
            ValueError: not JSON, or not a configuration (an unknown key, a value of another type).
        """
        record = json.loads(text)
        names = [f.name for f in fields(cls)]
        if not isinstance(record, dict) or record.keys() - set(names):
            raise ValueError(f"expected the keys {', '.join(names)}")
        config: Self = _from_record(cls, record)
        unet = config.unet
        for name in ("attends", "heads", "head_width", "depth"):
            value = getattr(unet, name)
            if isinstance(value, tuple) and len(value) != len(unet.multipliers):
                raise ValueError(
                    f"UNetConfig.{name} has {len(value)} values for {len(unet.multipliers)} levels"
                )
        return config


SD1 = ModelConfig()

# What files that are older than a field call it: by class, the old name and what it was.
FORMER: Mapping[type, Mapping[str, tuple[str, ...]]] = {
    UNetConfig: {"latent_channels": ("in_channels", "out_channels")}
}


def _from_record(cls: Any, record: Any) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{cls.__name__} is not an object")
    kinds = get_type_hints(cls)
    former = FORMER.get(cls, {})
    values: dict[str, Any] = {}
    for name, value in record.items():
        for current in former.get(name, (name,)):
            if current not in kinds:
                raise ValueError(f"{cls.__name__} has no field {current}")
            values.setdefault(current, _checked(f"{cls.__name__}.{name}", kinds[current], value))
    return cls(**values)


def _checked(name: str, kind: Any, value: Any) -> Any:
    """`value` in a field's type; JSON knows no tuples and writes 1.0 as it likes."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _from_record(kind, value)
    if origin in (Union, UnionType):
        simple = [one for one in inner if get_origin(one) is None]
        if isinstance(value, list) and (several := [one for one in inner if get_origin(one) is tuple]):
            return _checked(name, several[0], value)
        if type(value) in simple:
            return value
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_checked(name, inner[0], item) for item in value)
    elif origin is Literal:
        if type(value) is str and value in inner:
            return value
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{name} is {value!r}, expected {_in_words(kind)}")


def _in_words(kind: Any) -> str:
    """A field's type as an error has it: of several, all."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_in_words(one) for one in get_args(kind))
    if kind is NoneType:
        return "null"
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    name: str = (get_origin(kind) or kind).__name__
    return name


@dataclass(frozen=True)
class Block:
    """One block of the U-Net: what it is, and how many channels go in and come out."""

    kind: Literal["conv", "residual", "transformer", "down", "up"]
    inputs: int
    outputs: int
    level: int = 0


def unet_groups(config: UNetConfig) -> tuple[list[list[Block]], list[list[Block]], list[list[Block]]]:
    """The topology of the U-Net as a table: groups of blocks on the way down, in the middle, on the way up.

    The output of every group on the way down is kept as a skip; every group on the way up takes the newest
    one left and begins by concatenating it. For SD 1.x: 12 groups, 1, and 12, numbered as in LDM's files
    (`input_blocks.N.M`, `middle_block.M`, `output_blocks.N.M`: group N, block M).
    """
    widths = [config.channels * m for m in config.multipliers]
    last = len(widths) - 1

    def transformer(level: int) -> list[Block]:
        return [Block("transformer", widths[level], widths[level], level)] if config.attends[level] else []

    down = [[Block("conv", config.in_channels, widths[0])]]
    skips = [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(config.residual_blocks):
            down.append([Block("residual", skips[-1], width, level), *transformer(level)])
            skips.append(width)
        if level < last:
            down.append([Block("down", width, width, level)])
            skips.append(width)

    width = widths[-1]
    middle = [[Block(kind, width, width, last) for kind in ("residual", "transformer", "residual")]]
    if not config.middle:
        middle = []

    up: list[list[Block]] = []
    current = width
    for level in reversed(range(len(widths))):
        for index in range(config.residual_blocks + 1):
            group = [Block("residual", current + skips.pop(), widths[level], level), *transformer(level)]
            current = widths[level]
            if level > 0 and index == config.residual_blocks:
                group.append(Block("up", current, current, level))
            up.append(group)
    return down, middle, up
