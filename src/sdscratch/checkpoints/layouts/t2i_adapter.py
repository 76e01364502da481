"""A T2I-Adapter's weights: our names, those of the published files, diffusers'.

The published files count the blocks of a full adapter through all levels; light ones have other names.

>>> from sdscratch.checkpoints.layouts.t2i_adapter import show
>>> show("levels.1.blocks.0.conv1.weight")
body.2.block1.weight
adapter.body.1.resnets.0.block1.weight
>>> show("levels.1.blocks.3.conv1.weight", light=True)
body.1.body.3.block1.weight
adapter.body.1.resnets.3.block1.weight
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from sdscratch.checkpoints.layouts.rows import Values, Weight, expand, rows
from sdscratch.models.config import AdapterConfig

__all__ = ["adapter_weights", "show"]

FIRST = rows("conv_in.*  =  =  outputs inputs 3 3")
FULL_IN = rows(
    "levels.{l}.conv_in.*          body.{b}.in_conv.*   body.{l}.in_conv.*            inner inputs 1 1"
)
LIGHT_IN = rows(
    "levels.{l}.conv_in.*         body.{l}.in_conv.*   =                             inner inputs 1 1"
)
LIGHT_OUT = rows(
    "levels.{l}.conv_out.*       body.{l}.out_conv.*  =                             outputs inner 1 1"
)
FULL = rows("""
    levels.{l}.blocks.{i}.conv1.*  body.{b}.block1.*          body.{l}.resnets.{i}.block1.*  inner inner 3 3
    levels.{l}.blocks.{i}.conv2.*  body.{b}.block2.*          body.{l}.resnets.{i}.block2.*  inner inner k
""")
LIGHT = rows("""
    levels.{l}.blocks.{i}.conv1.* body.{l}.body.{i}.block1.*  body.{l}.resnets.{i}.block1.*  inner inner 3 3
    levels.{l}.blocks.{i}.conv2.* body.{l}.body.{i}.block2.*  body.{l}.resnets.{i}.block2.*  inner inner k
""")
PREFIXES = "", "adapter."


@lru_cache(maxsize=8)
def adapter_weights(config: AdapterConfig) -> tuple[Weight, ...]:
    """Every weight of an adapter."""
    return tuple(_weights(config))


def _weights(config: AdapterConfig) -> Iterator[Weight]:
    before = config.inputs
    if not config.light:
        before = config.channels[0]
        where: Values = {"inputs": config.inputs, "outputs": before}
        yield from expand("adapter", PREFIXES, FIRST, where)
    for level, outputs in enumerate(config.channels):
        inner = outputs // 4 if config.light else outputs
        sides: Values = {"inputs": before, "inner": inner, "outputs": outputs, "k": (config.kernel,) * 2}
        where = {**sides, "l": level, "b": level * config.blocks, "i": 0}
        if config.light:
            yield from expand("adapter", PREFIXES, LIGHT_IN, where)
        elif before != outputs:
            yield from expand("adapter", PREFIXES, FULL_IN, where)
        for i in range(config.blocks):
            block: Values = {**where, "i": i, "b": level * config.blocks + i}
            yield from expand("adapter", PREFIXES, LIGHT if config.light else FULL, block)
        if config.light:
            yield from expand("adapter", PREFIXES, LIGHT_OUT, where)
        before = outputs


def show(name: str, light: bool = False) -> None:
    """Print what files call a weight of ours, for the examples above."""
    config = AdapterConfig(blocks=4, light=True, kernel=3) if light else AdapterConfig()
    weight = next(weight for weight in adapter_weights(config) if weight.name == name)
    print(weight.ldm)
    print(weight.diffusers)
