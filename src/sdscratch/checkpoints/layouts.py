"""What every weight is called: in our networks, in LDM's single files and in diffusers' folders.

`weights` walks a configuration's topology with the tables of `names` and lists every weight of the model
with its three names and its shapes. Reading looks a weight up by the file's name, writing by ours: both
directions come from the one list. This module imports no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from sdscratch.checkpoints import names
from sdscratch.checkpoints.names import Layout, Names
from sdscratch.models.config import AutoencoderConfig, Block, ModelConfig, UNetConfig, unet_groups

__all__ = ["FOLDERS", "PARTS", "Part", "Shape", "Weight", "weights"]

Part = Literal["text", "unet", "encoder", "decoder"]
Shape = tuple[int, ...]

PARTS: tuple[Part, ...] = ("text", "unet", "encoder", "decoder")
# Where a part lives in a diffusers folder.
FOLDERS: Mapping[Part, str] = {"text": "text_encoder", "unet": "unet", "encoder": "vae", "decoder": "vae"}


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a model under its three names."""

    part: Part
    name: str  # in the part's state_dict
    ldm: str  # in an LDM file
    diffusers: str  # in a diffusers folder, its subfolder in front
    shape: Shape  # in our networks and in diffusers'
    ldm_shape: Shape  # LDM's autoencoder attends with 1×1 convolutions where the others have matrices

    def stored(self, layout: Layout) -> tuple[str, Shape]:
        """Its name and shape in a file of that layout."""
        return (self.ldm, self.ldm_shape) if layout == "ldm" else (self.diffusers, self.shape)


# --- Shapes of the weights, of which a bias takes the first side ----------------------------------------


def _with_bias(modules: Mapping[str, Shape]) -> dict[str, Shape]:
    leaves = {f"{module}.weight": shape for module, shape in modules.items()}
    return leaves | {f"{module}.bias": shape[:1] for module, shape in modules.items()}


def _conv(inputs: int, outputs: int, size: int = 3) -> Shape:
    return (outputs, inputs, size, size)


def _residual(inputs: int, outputs: int, time: int | None = None) -> dict[str, Shape]:
    modules = {
        "norm1": (inputs,),
        "conv1": _conv(inputs, outputs),
        "norm2": (outputs,),
        "conv2": _conv(outputs, outputs),
    }
    if time is not None:
        modules["time"] = (outputs, time)
    if inputs != outputs:
        modules["skip"] = _conv(inputs, outputs, 1)
    return _with_bias(modules)


def _spatial_transformer(width: int, context: int) -> dict[str, Shape]:
    modules = {
        "norm": (width,),
        "project_in": _conv(width, width, 1),
        "block.self_attention.out": (width, width),
        "block.cross_attention.out": (width, width),
        "block.feed_forward.expand": (8 * width, width),
        "block.feed_forward.contract": (width, 4 * width),
        "project_out": _conv(width, width, 1),
    }
    modules |= {f"block.norm{n}": (width,) for n in (1, 2, 3)}
    without_bias = {
        f"block.self_attention.{name}.weight": (width, width) for name in ("query", "key", "value")
    }
    without_bias |= {
        "block.cross_attention.query.weight": (width, width),
        "block.cross_attention.key.weight": (width, context),
        "block.cross_attention.value.weight": (width, context),
    }
    return _with_bias(modules) | without_bias


def _position_attention(width: int) -> dict[str, Shape]:
    square = dict.fromkeys(("query", "key", "value", "out"), (width, width))
    return _with_bias({"norm": (width,), **square})


def _text_layer(width: int, feed_forward: int) -> dict[str, Shape]:
    modules: dict[str, Shape] = {
        f"attention.{name}": (width, width) for name in ("query", "key", "value", "out")
    }
    modules |= {"norm1": (width,), "norm2": (width,), "expand": (feed_forward, width)}
    return _with_bias(modules | {"contract": (width, feed_forward)})


# --- The walk: where the blocks stand --------------------------------------------------------------------


class Place(NamedTuple):
    """A module's three names; added to another, the inner one's."""

    ours: str
    ldm: str
    diffusers: str


Placed = tuple[Place, Shape]


def _block(place: Place, table: Names, shapes: Mapping[str, Shape]) -> Iterator[Placed]:
    """Every weight of one block, whose modules `table` calls within the block's own names."""
    for leaf, shape in shapes.items():
        module, kind = leaf.rsplit(".", 1)
        inner = (module, *table[module])
        yield Place(*(f"{outer}{name}.{kind}" for outer, name in zip(place, inner, strict=True))), shape


def _text(config: ModelConfig) -> Iterator[Placed]:
    text = config.text
    ends = {"tokens.weight": (text.vocabulary, text.width), "positions.weight": (text.length, text.width)}
    yield from _block(Place("", "", ""), names.TEXT_ENDS, ends | _with_bias({"final_norm": (text.width,)}))
    for index in range(text.layers):
        place = Place(f"layers.{index}.", *[f"encoder.layers.{index}."] * 2)
        yield from _block(place, names.TEXT_LAYER, _text_layer(text.width, text.feed_forward))


UNET_BLOCKS: Mapping[str, tuple[str, Names, Callable[[Block, UNetConfig], dict[str, Shape]]]] = {
    # kind of block: diffusers' list of them, their modules, their shapes
    "residual": (
        "resnets",
        names.UNET_RESIDUAL,
        lambda b, unet: _residual(b.inputs, b.outputs, 4 * unet.channels),
    ),
    "transformer": (
        "attentions",
        names.UNET_TRANSFORMER,
        lambda b, unet: _spatial_transformer(b.outputs, unet.context),
    ),
    "down": ("downsamplers", names.UNET_DOWN, lambda b, _: _with_bias({"conv": _conv(b.inputs, b.outputs)})),
    "up": ("upsamplers", names.UNET_UP, lambda b, _: _with_bias({"conv": _conv(b.inputs, b.outputs)})),
}


def _unet(config: ModelConfig) -> Iterator[Placed]:
    unet = config.unet
    time = 4 * unet.channels
    ends = {
        "time1": (time, unet.channels),
        "time2": (time, time),
        "down.0.0": _conv(unet.latent_channels, unet.channels),
        "norm_out": (unet.channels,),
        "conv_out": _conv(unet.channels, unet.latent_channels),
    }
    yield from _block(Place("", "", ""), names.UNET_ENDS, _with_bias(ends))

    down, middle, up = unet_groups(unet)
    a_level = unet.residual_blocks + 1  # groups; on the way down the last of them is the downsampling
    places = [
        *(
            (f"down.{n}", f"input_blocks.{n}", f"down_blocks.{(n - 1) // a_level}")
            for n in range(1, len(down))
        ),
        ("middle.0", "middle_block", "mid_block"),
        *((f"up.{n}", f"output_blocks.{n}", f"up_blocks.{n // a_level}") for n in range(len(up))),
    ]
    counts: Counter[str] = Counter()  # diffusers numbers each kind of block for itself within a level
    for (ours, ldm, diffusers), group in zip(places, [*down[1:], *middle, *up], strict=True):
        for number, block in enumerate(group):
            kind, table, shapes = UNET_BLOCKS[block.kind]
            blocks = f"{diffusers}.{kind}"
            place = Place(f"{ours}.{number}.", f"{ldm}.{number}.", f"{blocks}.{counts[blocks]}.")
            counts[blocks] += 1
            yield from _block(place, table, shapes(block, unet))


def _coder(
    config: AutoencoderConfig,
    coder: str,
    way: str,
    ends: dict[str, Shape],
    multipliers: Sequence[int],
    blocks: int,
) -> Iterator[Placed]:
    """What encoder and decoder share: `way` is the encoder's down or the decoder's up."""
    widths = [config.channels * m for m in multipliers]
    last = len(widths) - 1
    yield from _block(Place("", f"{coder}.", f"{coder}."), names.VAE_ENDS, _with_bias(ends))
    for level, width in enumerate(widths):
        ours = f"{way}.{level}"
        # LDM counts the decoder's levels from its end
        ldm = f"{coder}.{way}.{level if way == 'down' else last - level}"
        diffusers = f"{coder}.{way}_blocks.{level}"
        for index in range(blocks):
            place = Place(f"{ours}.blocks.{index}.", f"{ldm}.block.{index}.", f"{diffusers}.resnets.{index}.")
            inputs = widths[max(level - 1, 0)] if index == 0 else width
            yield from _block(place, names.VAE_RESIDUAL, _residual(inputs, width))
        if level < last:
            place = Place(f"{ours}.resample.", f"{ldm}.{way}sample.", f"{diffusers}.{way}samplers.0.")
            yield from _block(place, names.VAE_RESAMPLE, _with_bias({"conv": _conv(width, width)}))
    deepest = config.channels * config.multipliers[-1]
    for number in (1, 2):
        place = Place(
            f"middle.block{number}.",
            f"{coder}.mid.block_{number}.",
            f"{coder}.mid_block.resnets.{number - 1}.",
        )
        yield from _block(place, names.VAE_RESIDUAL, _residual(deepest, deepest))
    place = Place("middle.attention.", f"{coder}.mid.attn_1.", f"{coder}.mid_block.attentions.0.")
    yield from _block(place, names.VAE_ATTENTION, _position_attention(deepest))


def _encoder(config: ModelConfig) -> Iterator[Placed]:
    vae = config.autoencoder
    moments = 2 * vae.latent_channels  # mean and log variance
    deepest = vae.channels * vae.multipliers[-1]
    ends = {"conv_in": _conv(3, vae.channels), "norm_out": (deepest,), "conv_out": _conv(deepest, moments)}
    yield from _coder(vae, "encoder", "down", ends, vae.multipliers, vae.residual_blocks)
    yield from _block(
        Place("", "", ""), names.ENCODER_QUANT, _with_bias({"quant": _conv(moments, moments, 1)})
    )


def _decoder(config: ModelConfig) -> Iterator[Placed]:
    vae = config.autoencoder
    deepest, first = vae.channels * vae.multipliers[-1], vae.channels * vae.multipliers[0]
    ends = {"conv_in": _conv(vae.latent_channels, deepest), "norm_out": (first,), "conv_out": _conv(first, 3)}
    yield from _block(
        Place("", "", ""),
        names.DECODER_QUANT,
        _with_bias({"quant": _conv(vae.latent_channels, vae.latent_channels, 1)}),
    )
    yield from _coder(vae, "decoder", "up", ends, vae.multipliers[::-1], vae.residual_blocks + 1)


WALKS: Mapping[Part, tuple[Callable[[ModelConfig], Iterator[Placed]], str, str]] = {
    # part: its walk, and what LDM and diffusers put in front
    "text": (_text, "cond_stage_model.transformer.text_model.", "text_encoder/text_model."),
    "unet": (_unet, "model.diffusion_model.", "unet/"),
    "encoder": (_encoder, "first_stage_model.", "vae/"),
    "decoder": (_decoder, "first_stage_model.", "vae/"),
}
POINTWISE = re.compile(r"first_stage_model\..*\.attn_1\.(q|k|v|proj_out)\.weight")


@lru_cache(maxsize=16)
def weights(config: ModelConfig) -> tuple[Weight, ...]:
    """Every weight of the model, part by part (SD 1.x: 1130)."""
    found = []
    for part, (walk, ldm_prefix, diffusers_prefix) in WALKS.items():
        for place, shape in walk(config):
            ldm = ldm_prefix + place.ldm
            ldm_shape = (*shape, 1, 1) if POINTWISE.fullmatch(ldm) else shape
            found.append(Weight(part, place.ours, ldm, diffusers_prefix + place.diffusers, shape, ldm_shape))
    return tuple(found)
