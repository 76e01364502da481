"""The U-Net's weights: our names, LDM's, diffusers'.

>>> from sdscratch.checkpoints.layouts import show
>>> show("unet", "down.1.0.conv1.weight")
model.diffusion_model.input_blocks.1.0.in_layers.2.weight
unet/down_blocks.0.resnets.0.conv1.weight
>>> show("unet", "middle.0.1.block.cross_attention.key.weight")
model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight
unet/mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight
>>> show("unet", "up.2.1.conv.bias")
model.diffusion_model.output_blocks.2.1.conv.bias
unet/up_blocks.0.upsamplers.0.conv.bias
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from sdscratch.checkpoints.layouts.rows import Row, Values, Weight, at, expand, rows
from sdscratch.models.config import Block, UNetConfig, unet_groups

__all__ = ["ROWS", "unet_weights"]

PREFIXES = ("model.diffusion_model.", "unet/")

ENDS = rows("""
    time1.*     time_embed.0.*      time_embedding.linear_1.*   time channels
    time2.*     time_embed.2.*      time_embedding.linear_2.*   time time
    down.0.0.*  input_blocks.0.0.*  conv_in.*                   channels in_channels 3 3
    norm_out.*  out.0.*             conv_norm_out.*             channels
    conv_out.*  out.2.*             conv_out.*                  out_channels channels 3 3
""")
GUIDANCE = rows("""
    guidance.weight  time_embed.cond_proj.weight  time_embedding.cond_proj.weight  channels guidance
""")
ADDED = rows("""
    added1.*    label_emb.0.0.*     add_embedding.linear_1.*    time added
    added2.*    label_emb.0.2.*     add_embedding.linear_2.*    time time
""")

# Where a block stands: block b of group g; diffusers counts each kind of block for itself within a level.
STEMS = {
    "down": ("down.{g}.{b}", "input_blocks.{g}.{b}", "down_blocks.{l}.{kind}.{i}"),
    "middle": ("middle.{g}.{b}", "middle_block.{b}", "mid_block.{kind}.{i}"),
    "up": ("up.{g}.{b}", "output_blocks.{g}.{b}", "up_blocks.{l}.{kind}.{i}"),
}
RESIDUAL = rows("""
    norm1.*  in_layers.0.*      norm1.*          inputs
    conv1.*  in_layers.2.*      conv1.*          outputs inputs 3 3
    time.*   emb_layers.1.*     time_emb_proj.*  outputs time
    norm2.*  out_layers.0.*     norm2.*          outputs
    conv2.*  out_layers.3.*     conv2.*          outputs outputs 3 3
""")
SKIP = rows("skip.*  skip_connection.*  conv_shortcut.*  outputs inputs 1 1")
TRANSFORMER = rows("""
    norm.*         =           =  outputs
    project_in.*   proj_in.*   =  outputs outputs point
    project_out.*  proj_out.*  =  outputs outputs point
""")
TRANSFORMER_BLOCK = rows("""
    {block}.norm1.*                        transformer_blocks.{d}.norm1.*            =  outputs
    {block}.self_attention.query.weight    transformer_blocks.{d}.attn1.to_q.weight  =  outputs outputs
    {block}.self_attention.key.weight      transformer_blocks.{d}.attn1.to_k.weight  =  outputs outputs
    {block}.self_attention.value.weight    transformer_blocks.{d}.attn1.to_v.weight  =  outputs outputs
    {block}.self_attention.out.*           transformer_blocks.{d}.attn1.to_out.0.*   =  outputs outputs
    {block}.norm2.*                        transformer_blocks.{d}.norm2.*            =  outputs
    {block}.cross_attention.query.weight   transformer_blocks.{d}.attn2.to_q.weight  =  outputs outputs
    {block}.cross_attention.key.weight     transformer_blocks.{d}.attn2.to_k.weight  =  outputs context
    {block}.cross_attention.value.weight   transformer_blocks.{d}.attn2.to_v.weight  =  outputs context
    {block}.cross_attention.out.*          transformer_blocks.{d}.attn2.to_out.0.*   =  outputs outputs
    {block}.norm3.*                        transformer_blocks.{d}.norm3.*            =  outputs
    {block}.feed_forward.expand.*          transformer_blocks.{d}.ff.net.0.proj.*    =  wide outputs
    {block}.feed_forward.contract.*        transformer_blocks.{d}.ff.net.2.*         =  outputs hidden
""")
DOWN = rows("conv.*  op.*    conv.*  outputs outputs 3 3")
UP = rows("conv.*  conv.*  conv.*  outputs outputs 3 3")

KINDS = {"residual": "resnets", "transformer": "attentions", "down": "downsamplers", "up": "upsamplers"}
TABLES = {"residual": RESIDUAL, "skip": SKIP, "transformer": TRANSFORMER, "block": TRANSFORMER_BLOCK,
          "down": DOWN, "up": UP}  # fmt: skip

# Every row with its whole path, by the way that a block lies on and what of it the rows are.
ROWS: Mapping[tuple[str, str], tuple[Row, ...]] = {
    (way, table): at(stem, block) for way, stem in STEMS.items() for table, block in TABLES.items()
} | {("", "ends"): ENDS, ("", "added"): ADDED, ("", "guidance"): GUIDANCE}


def unet_weights(config: UNetConfig) -> Iterator[Weight]:
    """Every weight of a U-Net."""
    shared: Values = {
        "channels": config.channels,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "time": 4 * config.channels,
        "context": config.context,
        "point": (1, 1) if config.projection == "conv" else (),
        "guidance": config.guidance or 0,
        "added": (config.pooled or 0) + config.sizes * config.size_width,
    }
    yield from expand("unet", PREFIXES, ROWS["", "ends"], shared)
    if config.pooled is not None:
        yield from expand("unet", PREFIXES, ROWS["", "added"], shared)
    if config.guidance is not None:
        yield from expand("unet", PREFIXES, ROWS["", "guidance"], shared)
    counts: Counter[tuple[str, int | None, str]] = Counter()
    for way, groups in zip(STEMS, unet_groups(config), strict=True):
        for g, group in enumerate(groups):
            for b, block in enumerate(group):
                if block.kind == "conv":  # the first, among the ends
                    continue
                level = _level(config, way, g)
                kind = KINDS[block.kind]
                where: Values = {"g": g, "b": b, "l": level, "kind": kind, "i": counts[way, level, kind]}
                counts[way, level, kind] += 1
                yield from _block(config, way, block, {**shared, **where})


def _level(config: UNetConfig, way: str, group: int) -> int:
    """diffusers' number of a group's level, counted along its way."""
    a_level = config.residual_blocks + 1  # groups; on the way down the last of them is the downsampling
    return {"down": (group - 1) // a_level, "middle": 0, "up": group // a_level}[way]


def _block(config: UNetConfig, way: str, block: Block, values: Values) -> Iterator[Weight]:
    outputs = block.outputs
    sides = {"inputs": block.inputs, "outputs": outputs, "wide": 8 * outputs, "hidden": 4 * outputs}
    values = {**values, **sides}
    yield from expand("unet", PREFIXES, ROWS[way, block.kind], values)
    if block.kind == "residual" and block.inputs != outputs:
        yield from expand("unet", PREFIXES, ROWS[way, "skip"], values)
    if block.kind == "transformer":
        for d in range(config.depth_at(block.level)):
            values = {**values, "d": d, "block": f"block{d or ''}"}
            yield from expand("unet", PREFIXES, ROWS[way, "block"], values)
