"""The weights of upscalers of the ESRGAN family: our names, and theirs in three generations of files.

>>> from sdscratch.models.config import RRDBConfig
>>> for layout in NAMES:
...     print(rrdb_names(RRDBConfig(), layout)["blocks.22.0.conv5.weight"])
body.22.rdb1.conv5.weight
RRDB_trunk.22.RDB1.conv5.weight
model.1.sub.22.RDB1.conv5.0.weight
>>> rrdb_names(RRDBConfig(upsamplings=1), "ESRGAN")["conv_last.bias"]
model.7.bias

The oldest files number the layers of a sequence, in which each upsampling is three; the compact network's
names are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdscratch.models.config import CompactConfig, RRDBConfig, UpscalerConfig

__all__ = ["NAMES", "rrdb_names", "shapes", "upscaler_names"]

Shape = tuple[int, ...]

# Ours, and Real-ESRGAN's, BSRGAN's and ESRGAN's. In braces: block b, dense block d (in files from 1, e),
# convolution c, upsampling u (v); of the sequence, n blocks, and the places of what follows upsamplings.
ROWS = """
    conv_first  conv_first  conv_first  model.0
    blocks.{b}.{d}.conv{c}  body.{b}.rdb{e}.conv{c}  RRDB_trunk.{b}.RDB{e}.conv{c}  \
        model.1.sub.{b}.RDB{e}.conv{c}.0
    conv_body   conv_body   trunk_conv  model.1.sub.{n}
    up.{u}      conv_up{v}  upconv{v}   model.{up}
    conv_hr     conv_hr     HRconv      model.{hr}
    conv_last   conv_last   conv_last   model.{last}
"""
LAYOUTS = ("Real-ESRGAN", "BSRGAN", "ESRGAN")
NAMES: Mapping[str, Mapping[str, str]] = {
    layout: {row[0]: row[1 + index] for row in map(str.split, ROWS.strip().splitlines())}
    for index, layout in enumerate(LAYOUTS)
}


def _modules(config: RRDBConfig) -> Iterator[tuple[str, dict[str, int], int, int]]:
    """Every convolution: its row, what stands for the braces there, and its input and output channels."""
    channels, growth = config.channels, config.growth
    yield "conv_first", {}, config.inputs * config.unshuffle**2, channels
    for b in range(config.blocks):
        for d in range(3):
            for c in range(1, 6):
                inputs, outputs = channels + (c - 1) * growth, growth if c < 5 else channels
                yield "blocks.{b}.{d}.conv{c}", {"b": b, "d": d, "e": d + 1, "c": c}, inputs, outputs
    yield "conv_body", {"n": config.blocks}, channels, channels
    for u in range(config.upsamplings):
        yield "up.{u}", {"u": u, "v": u + 1, "up": 3 + 3 * u}, channels, channels
    yield "conv_hr", {"hr": 2 + 3 * config.upsamplings}, channels, channels
    yield "conv_last", {"last": 4 + 3 * config.upsamplings}, channels, config.outputs


def rrdb_names(config: RRDBConfig, layout: str) -> dict[str, str]:
    """Our name of each tensor → the file's, in one of `NAMES`."""
    theirs = NAMES[layout]
    return {
        f"{row.format_map(values)}.{leaf}": f"{theirs[row].format_map(values)}.{leaf}"
        for row, values, _, _ in _modules(config)
        for leaf in ("weight", "bias")
    }


def upscaler_names(config: UpscalerConfig, layout: str) -> dict[str, str]:
    """The same of either network."""
    return (
        rrdb_names(config, layout)
        if isinstance(config, RRDBConfig)
        else {name: name for name in shapes(config)}
    )


def shapes(config: UpscalerConfig) -> dict[str, Shape]:
    """The shape of each tensor, by our name."""
    if isinstance(config, CompactConfig):
        return dict(_compact_shapes(config))
    found: dict[str, Shape] = {}
    for row, values, inputs, outputs in _modules(config):
        name = row.format_map(values)
        found |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    return found


def _compact_shapes(config: CompactConfig) -> Iterator[tuple[str, Shape]]:
    inputs = config.inputs
    for index in range(config.convolutions + 1):
        yield f"body.{2 * index}.weight", (config.channels, inputs, 3, 3)
        yield f"body.{2 * index}.bias", (config.channels,)
        yield f"body.{2 * index + 1}.weight", (config.channels,)
        inputs = config.channels
    last = 2 * config.convolutions + 2
    yield f"body.{last}.weight", (config.inputs * config.scale**2, inputs, 3, 3)
    yield f"body.{last}.bias", (config.inputs * config.scale**2,)
