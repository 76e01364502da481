"""A ControlNet's weights: our names, LDM's, diffusers'. Its way down and middle are the U-Net's own.

>>> from sdscratch.checkpoints.layouts.controlnet import show
>>> show("down.1.1.block.cross_attention.key.weight")
control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight
>>> show("hint.convs.2.weight")
control_model.input_hint_block.4.weight
controlnet_cond_embedding.blocks.1.weight
>>> show("zero.3.bias")
control_model.zero_convs.3.0.bias
controlnet_down_blocks.3.bias
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from sdscratch.checkpoints.layouts.rows import Shape, Values, Weight, expand, rows
from sdscratch.checkpoints.layouts.unet import PREFIXES as UNET_PREFIXES
from sdscratch.checkpoints.layouts.unet import unet_weights
from sdscratch.models.config import ControlNetConfig, unet_groups

__all__ = ["PREFIX", "controlnet_weights", "hint_widths", "of_unet", "show"]

PREFIX = "control_model."
SHARED = ("time1.", "time2.", "down.", "middle.")  # how the names of what the U-Net has as well begin

HINT = rows(
    "hint.convs.{i}.*   input_hint_block.{n}.*  controlnet_cond_embedding.{conv}.*  outputs inputs 3 3"
)
ZERO = rows("zero.{g}.*         zero_convs.{g}.0.*      controlnet_down_blocks.{g}.*  outputs outputs 1 1")
LAST = rows("zero_middle.*      middle_block_out.0.*    controlnet_mid_block.*        outputs outputs 1 1")


@lru_cache(maxsize=8)
def controlnet_weights(config: ControlNetConfig) -> tuple[Weight, ...]:
    """Every weight of a ControlNet (SD 1.x: 340)."""
    return tuple(_weights(config))


def of_unet(weight: Weight) -> Weight:
    """The U-Net's weight, in a model's list, that a ControlNet's began as."""
    inner = weight.ldm.removeprefix(PREFIX)
    return replace(
        weight, part="unet", ldm=UNET_PREFIXES[0] + inner, diffusers=UNET_PREFIXES[1] + weight.diffusers
    )


def _weights(config: ControlNetConfig) -> Iterator[Weight]:
    for weight in unet_weights(config.unet):
        if weight.name.startswith(SHARED):
            ldm = PREFIX + weight.ldm.removeprefix(UNET_PREFIXES[0])
            diffusers = weight.diffusers.removeprefix(UNET_PREFIXES[1])
            yield replace(weight, part="controlnet", ldm=ldm, diffusers=diffusers)
    prefixes = PREFIX, ""
    widths = config.hint_widths
    sides = [config.hint_channels, widths[0]]
    for width in widths[1:]:
        sides += [sides[-1], width]
    sides.append(config.unet.channels)
    last = len(sides) - 2
    for i, (inputs, outputs) in enumerate(pairwise(sides)):
        conv = "conv_in" if i == 0 else "conv_out" if i == last else f"blocks.{i - 1}"
        where: Values = {"i": i, "n": 2 * i, "conv": conv, "inputs": inputs, "outputs": outputs}
        yield from expand("controlnet", prefixes, HINT, where)
    down = unet_groups(config.unet)[0]
    for g, group in enumerate(down):
        yield from expand("controlnet", prefixes, ZERO, {"g": g, "outputs": group[-1].outputs})
    yield from expand("controlnet", prefixes, LAST, {"outputs": down[-1][-1].outputs})


def hint_widths(shapes: Mapping[str, Shape]) -> tuple[int, tuple[int, ...]]:
    """Channels of the hint, and widths of its encoder, as a file's shapes tell them; (0, ()) if they do not.

    Args:
        shapes: by LDM's names, without a prefix, or by diffusers'.
    """
    names = ("input_hint_block.{n}", "controlnet_cond_embedding.{conv}")
    for first, between in ((names[0].format(n=0), names[0]), (names[1].format(conv="conv_in"), names[1])):
        shape = shapes.get(f"{first}.weight", ())
        if len(shape) != 4:
            continue
        widths = [shape[0]]
        for i in range(2, 64, 2):  # every second convolution halves; the one behind the last ends it all
            here, after = (between.format(n=2 * j, conv=f"blocks.{j - 1}") for j in (i, i + 1))
            halves = shapes.get(f"{here}.weight")
            ends = (
                f"{after}.weight" not in shapes and "controlnet_cond_embedding.conv_out.weight" not in shapes
            )
            if halves is None or ends:
                break
            widths.append(halves[0])
        return shape[1], tuple(widths)
    return 0, ()


def show(name: str, config: ControlNetConfig | None = None) -> None:
    """Print what files call a weight of ours, for the examples above."""
    config = config or ControlNetConfig()
    weight = next(weight for weight in controlnet_weights(config) if weight.name == name)
    print(weight.ldm)
    print(weight.diffusers)
