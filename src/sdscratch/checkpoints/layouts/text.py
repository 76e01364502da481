"""The weights of OpenAI's text encoder: our names, LDM's, diffusers' (and transformers').

>>> from sdscratch.checkpoints.layouts import show
>>> show("text", "tokens.weight")
cond_stage_model.transformer.text_model.embeddings.token_embedding.weight
text_encoder/text_model.embeddings.token_embedding.weight
>>> show("text", "layers.11.attention.query.bias")
cond_stage_model.transformer.text_model.encoder.layers.11.self_attn.q_proj.bias
text_encoder/text_model.encoder.layers.11.self_attn.q_proj.bias
>>> show("text", "layers.0.expand.weight")
cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight
text_encoder/text_model.encoder.layers.0.mlp.fc1.weight
"""

from __future__ import annotations

from collections.abc import Iterator

from sdscratch.checkpoints.layouts import openclip
from sdscratch.checkpoints.layouts.rows import Part, Rows, Weight, expand, rows
from sdscratch.models.config import ModelConfig

__all__ = ["text_weights"]

ENDS = rows("""
    tokens.weight     text_model.embeddings.token_embedding.weight     =  vocabulary width
    positions.weight  text_model.embeddings.position_embedding.weight  =  length width
    final_norm.*      text_model.final_layer_norm.*                    =  width
""")
PROJECTION = rows("projection.weight  text_projection.weight  =  projection width")
LAYER = rows("""
    layers.{n}.norm1.*            text_model.encoder.layers.{n}.layer_norm1.*         =  width
    layers.{n}.attention.query.*  text_model.encoder.layers.{n}.self_attn.q_proj.*    =  width width
    layers.{n}.attention.key.*    text_model.encoder.layers.{n}.self_attn.k_proj.*    =  width width
    layers.{n}.attention.value.*  text_model.encoder.layers.{n}.self_attn.v_proj.*    =  width width
    layers.{n}.attention.out.*    text_model.encoder.layers.{n}.self_attn.out_proj.*  =  width width
    layers.{n}.norm2.*            text_model.encoder.layers.{n}.layer_norm2.*         =  width
    layers.{n}.expand.*           text_model.encoder.layers.{n}.mlp.fc1.*             =  feed_forward width
    layers.{n}.contract.*         text_model.encoder.layers.{n}.mlp.fc2.*             =  width feed_forward
""")

# By family: the rows of both ends, of a projection, of a layer; and LDM's word for the network inside.
FAMILIES: dict[str, tuple[Rows, Rows, Rows, str]] = {
    "clip": (ENDS, PROJECTION, LAYER, "transformer."),
    "openclip": (openclip.ENDS, openclip.PROJECTION, openclip.LAYER, "model."),
}
TEXTS: tuple[tuple[Part, str], ...] = (("text", "text_encoder/"), ("text2", "text_encoder_2/"))


def text_weights(config: ModelConfig) -> Iterator[Weight]:
    """Every weight of a model's text encoders; LDM's files number them where there are several."""
    several = len(config.texts) > 1
    for number, (text, (part, folder)) in enumerate(zip(config.texts, TEXTS, strict=False)):
        ends, projection, layer, inner = FAMILIES[text.family]
        outer = f"conditioner.embedders.{number}." if several else "cond_stage_model."
        prefixes = (outer + inner, folder)
        values = {
            "vocabulary": text.vocabulary,
            "length": text.length,
            "width": text.width,
            "feed_forward": text.feed_forward,
            "projection": text.projection or 0,
        }
        yield from expand(part, prefixes, ends, values)
        if text.projection is not None:
            yield from expand(part, prefixes, projection, values)
        for n in range(text.layers):
            yield from expand(part, prefixes, layer, values | {"n": n})
