"""An IP-Adapter's weights and those of its image encoder: our names, and the published ones.

Both have one layout alone: what stands as LDM's and as diffusers' is the same.

>>> from sdscratch.checkpoints.layouts.ip_adapter import show
>>> show("keys.2.weight")
ip_adapter.5.to_k_ip.weight
>>> show("project.norm.bias")
image_proj.norm.bias
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from sdscratch.checkpoints.layouts.rows import Values, Weight, expand, rows
from sdscratch.models.image_prompt_config import ImageEncoderConfig, ImagePromptConfig

__all__ = ["image_encoder_weights", "image_prompt_weights", "show"]

PREFIXES = "", ""
ATTENTION = rows("""
    keys.{i}.weight    ip_adapter.{k}.to_k_ip.weight  =  width context
    values.{i}.weight  ip_adapter.{k}.to_v_ip.weight  =  width context
""")
PROJECTIONS = {
    "classic": rows("""
        project.project.*   image_proj.proj.*    =  all features
        project.norm.*      image_proj.norm.*    =  context
    """),
    "full": rows("""
        project.expand.*    image_proj.proj.0.*  =  features features
        project.contract.*  image_proj.proj.2.*  =  context features
        project.norm.*      image_proj.proj.3.*  =  context
    """),
    "plus": rows("""
        project.queries        image_proj.latents     =  1 tokens width
        project.project_in.*   image_proj.proj_in.*   =  width features
        project.project_out.*  image_proj.proj_out.*  =  context width
        project.norm.*         image_proj.norm_out.*  =  context
    """),
}
RESAMPLER = rows("""
    project.layers.{i}.norm_patches.*   image_proj.layers.{i}.0.norm1.*            =  width
    project.layers.{i}.norm_queries.*   image_proj.layers.{i}.0.norm2.*            =  width
    project.layers.{i}.query.weight     image_proj.layers.{i}.0.to_q.weight        =  inner width
    project.layers.{i}.key.weight       image_proj.layers.{i}.0.to_kv.weight[0/2]  =  inner width
    project.layers.{i}.value.weight     image_proj.layers.{i}.0.to_kv.weight[1/2]  =  inner width
    project.layers.{i}.out.weight       image_proj.layers.{i}.0.to_out.weight      =  width inner
    project.layers.{i}.norm.*           image_proj.layers.{i}.1.0.*                =  width
    project.layers.{i}.expand.weight    image_proj.layers.{i}.1.1.weight           =  wide width
    project.layers.{i}.contract.weight  image_proj.layers.{i}.1.3.weight           =  width wide
""")

ENCODER = rows("""
    first              vision_model.embeddings.class_embedding            =  width
    patches.weight     vision_model.embeddings.patch_embedding.weight     =  width 3 patch patch
    positions.weight   vision_model.embeddings.position_embedding.weight  =  places width
    norm_in.*          vision_model.pre_layrnorm.*                        =  width
    norm_out.*         vision_model.post_layernorm.*                      =  width
    projection.weight  visual_projection.weight                           =  projection width
""")
ENCODER_LAYER = rows("""
    layers.{i}.norm1.*     vision_model.encoder.layers.{i}.layer_norm1.*         =  width
    layers.{i}.query.*     vision_model.encoder.layers.{i}.self_attn.q_proj.*    =  width width
    layers.{i}.key.*       vision_model.encoder.layers.{i}.self_attn.k_proj.*    =  width width
    layers.{i}.value.*     vision_model.encoder.layers.{i}.self_attn.v_proj.*    =  width width
    layers.{i}.out.*       vision_model.encoder.layers.{i}.self_attn.out_proj.*  =  width width
    layers.{i}.norm2.*     vision_model.encoder.layers.{i}.layer_norm2.*         =  width
    layers.{i}.expand.*    vision_model.encoder.layers.{i}.mlp.fc1.*             =  wide width
    layers.{i}.contract.*  vision_model.encoder.layers.{i}.mlp.fc2.*             =  width wide
""")


@lru_cache(maxsize=8)
def image_prompt_weights(config: ImagePromptConfig) -> tuple[Weight, ...]:
    """Every weight of an IP-Adapter."""
    return tuple(_prompt(config))


def _prompt(config: ImagePromptConfig) -> Iterator[Weight]:
    shared: Values = {
        "features": config.features,
        "context": config.context,
        "tokens": config.tokens,
        "all": config.tokens * config.context,
        "width": config.width,
        "inner": config.heads * config.head_width,
        "wide": config.feed_forward,
    }
    yield from expand("image_prompt", PREFIXES, PROJECTIONS[config.kind], shared)
    if config.kind == "plus":
        for i in range(config.depth):
            yield from expand("image_prompt", PREFIXES, RESAMPLER, {**shared, "i": i})
    for i, width in enumerate(config.widths):
        where: Values = {"i": i, "k": 2 * i + 1, "width": width, "context": config.context}
        yield from expand("image_prompt", PREFIXES, ATTENTION, where)


@lru_cache(maxsize=8)
def image_encoder_weights(config: ImageEncoderConfig) -> tuple[Weight, ...]:
    """Every weight of an image encoder."""
    return tuple(_encoder(config))


def _encoder(config: ImageEncoderConfig) -> Iterator[Weight]:
    shared: Values = {
        "width": config.width,
        "patch": config.patch,
        "places": (config.side // config.patch) ** 2 + 1,
        "projection": config.projection,
        "wide": config.feed_forward,
    }
    yield from expand("vision", PREFIXES, ENCODER, shared)
    for i in range(config.layers):
        yield from expand("vision", PREFIXES, ENCODER_LAYER, {**shared, "i": i})


def show(name: str) -> None:
    """Print what files call a weight of ours, for the examples above."""
    config = ImagePromptConfig(widths=(320,) * 16)
    print(next(weight.ldm for weight in image_prompt_weights(config) if weight.name == name))
