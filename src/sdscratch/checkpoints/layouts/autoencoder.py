"""The weights of the autoencoder's two halves: our names, LDM's, diffusers'.

>>> from sdscratch.checkpoints.layouts import show
>>> show("encoder", "down.0.resample.conv.weight")
first_stage_model.encoder.down.0.downsample.conv.weight
vae/encoder.down_blocks.0.downsamplers.0.conv.weight
>>> show("decoder", "up.0.blocks.2.conv2.weight")
first_stage_model.decoder.up.3.block.2.conv2.weight
vae/decoder.up_blocks.0.resnets.2.conv2.weight
>>> show("decoder", "middle.attention.query.weight")
first_stage_model.decoder.mid.attn_1.q.weight, as a 1×1 convolution
vae/decoder.mid_block.attentions.0.to_q.weight
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdscratch.checkpoints.layouts.rows import Part, Values, Weight, at, expand, rows
from sdscratch.models.config import AutoencoderConfig

__all__ = ["decoder_weights", "encoder_weights"]

PREFIXES = ("first_stage_model.", "vae/")

ENCODER_ENDS = rows("""
    conv_in.*   encoder.conv_in.*   =                        channels 3 3 3
    norm_out.*  encoder.norm_out.*  encoder.conv_norm_out.*  deepest
    conv_out.*  encoder.conv_out.*  =                        moments deepest 3 3
    quant.*     quant_conv.*        =                        moments moments 1 1
""")
DECODER_ENDS = rows("""
    quant.*     post_quant_conv.*   =                        latent latent 1 1
    conv_in.*   decoder.conv_in.*   =                        deepest latent 3 3
    norm_out.*  decoder.norm_out.*  decoder.conv_norm_out.*  channels
    conv_out.*  decoder.conv_out.*  =                        3 channels 3 3
""")

# Where a block stands, in the encoder and the decoder; of the decoder's levels, LDM counts the last as 0 (r).
LEVELS = {
    "encoder": (
        ("down.{l}.blocks.{i}", "encoder.down.{l}.block.{i}", "encoder.down_blocks.{l}.resnets.{i}"),
        ("down.{l}.resample", "encoder.down.{l}.downsample", "encoder.down_blocks.{l}.downsamplers.0"),
    ),
    "decoder": (
        ("up.{l}.blocks.{i}", "decoder.up.{r}.block.{i}", "decoder.up_blocks.{l}.resnets.{i}"),
        ("up.{l}.resample", "decoder.up.{r}.upsample", "decoder.up_blocks.{l}.upsamplers.0"),
    ),
}
MIDDLE_BLOCK = ("middle.block{m}", "{half}.mid.block_{m}", "{half}.mid_block.resnets.{i}")
MIDDLE_ATTENTION = ("middle.attention", "{half}.mid.attn_1", "{half}.mid_block.attentions.0")

RESIDUAL = rows("""
    norm1.*  =  =  inputs
    conv1.*  =  =  outputs inputs 3 3
    norm2.*  =  =  outputs
    conv2.*  =  =  outputs outputs 3 3
""")
SKIP = rows("skip.*  nin_shortcut.*  conv_shortcut.*  outputs inputs 1 1")
RESAMPLE = rows("conv.*  =  =  outputs outputs 3 3")
ATTENTION = rows("""
    norm.*   norm.*           group_norm.*  outputs
    query.*  q.*[1x1]         to_q.*        outputs outputs
    key.*    k.*[1x1]         to_k.*        outputs outputs
    value.*  v.*[1x1]         to_v.*        outputs outputs
    out.*    proj_out.*[1x1]  to_out.0.*    outputs outputs
""")


def encoder_weights(config: AutoencoderConfig) -> Iterator[Weight]:
    """Every weight of the encoder."""
    yield from expand("encoder", PREFIXES, ENCODER_ENDS, _sides(config))
    yield from _half("encoder", config, config.multipliers, config.residual_blocks)


def decoder_weights(config: AutoencoderConfig) -> Iterator[Weight]:
    """Every weight of the decoder."""
    yield from expand("decoder", PREFIXES, DECODER_ENDS, _sides(config))
    yield from _half("decoder", config, config.multipliers[::-1], config.residual_blocks + 1)


def _sides(config: AutoencoderConfig) -> dict[str, int]:
    return {
        "channels": config.channels * config.multipliers[0],
        "deepest": config.channels * config.multipliers[-1],
        "latent": config.latent_channels,
        "moments": 2 * config.latent_channels,  # mean and log variance
    }


def _half(half: Part, config: AutoencoderConfig, multipliers: Sequence[int], blocks: int) -> Iterator[Weight]:
    """What encoder and decoder have alike; `multipliers` in the order in which their levels are passed."""
    widths = [config.channels * m for m in multipliers]
    last = len(widths) - 1
    block, resample = LEVELS[half]
    for level, width in enumerate(widths):
        for i in range(blocks):
            inputs = widths[max(level - 1, 0)] if i == 0 else width
            where = {"l": level, "r": last - level, "i": i}
            yield from expand(
                half, PREFIXES, at(block, RESIDUAL), where | {"inputs": inputs, "outputs": width}
            )
            if inputs != width:
                yield from expand(
                    half, PREFIXES, at(block, SKIP), where | {"inputs": inputs, "outputs": width}
                )
        if level < last:
            where = {"l": level, "r": last - level, "outputs": width}
            yield from expand(half, PREFIXES, at(resample, RESAMPLE), where)
    deepest = config.channels * config.multipliers[-1]
    middle: Values = {"half": half, "inputs": deepest, "outputs": deepest}
    for m in (1, 2):
        yield from expand(half, PREFIXES, at(MIDDLE_BLOCK, RESIDUAL), {**middle, "m": m, "i": m - 1})
    yield from expand(half, PREFIXES, at(MIDDLE_ATTENTION, ATTENTION), middle)
