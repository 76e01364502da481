"""The weights of OpenCLIP's text encoder, where LDM's files hold one: query, key and value are one tensor.

>>> from sdscratch.checkpoints.layouts import show
>>> from sdscratch.models.config import ModelConfig, TextEncoderConfig
>>> model = ModelConfig(TextEncoderConfig(family="openclip", projection=1024))
>>> show("text", "layers.0.attention.key.weight", model)
cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight, part 2 of 3
text_encoder/text_model.encoder.layers.0.self_attn.k_proj.weight
>>> show("text", "positions.weight", model)
cond_stage_model.model.positional_embedding
text_encoder/text_model.embeddings.position_embedding.weight
>>> show("text", "projection.weight", model)
cond_stage_model.model.text_projection, transposed
text_encoder/text_projection.weight
"""

from __future__ import annotations

from sdscratch.checkpoints.layouts.rows import at, rows

__all__ = ["ENDS", "LAYER", "PROJECTION"]

ENDS = rows("""
    tokens.weight     token_embedding.weight text_model.embeddings.token_embedding.weight    vocabulary width
    positions.weight  positional_embedding   text_model.embeddings.position_embedding.weight length width
    final_norm.*      ln_final.*             text_model.final_layer_norm.*                   width
""")
PROJECTION = rows("projection.weight  text_projection[T]  text_projection.weight  projection width")

LAYER = at(
    ("layers.{n}", "transformer.resblocks.{n}", "text_model.encoder.layers.{n}"),
    rows("""
    norm1.*                 ln_1.*                    layer_norm1.*            width
    attention.query.weight  attn.in_proj_weight[0/3]  self_attn.q_proj.weight  width width
    attention.key.weight    attn.in_proj_weight[1/3]  self_attn.k_proj.weight  width width
    attention.value.weight  attn.in_proj_weight[2/3]  self_attn.v_proj.weight  width width
    attention.query.bias    attn.in_proj_bias[0/3]    self_attn.q_proj.bias    width
    attention.key.bias      attn.in_proj_bias[1/3]    self_attn.k_proj.bias    width
    attention.value.bias    attn.in_proj_bias[2/3]    self_attn.v_proj.bias    width
    attention.out.*         attn.out_proj.*           self_attn.out_proj.*     width width
    norm2.*                 ln_2.*                    layer_norm2.*            width
    expand.*                mlp.c_fc.*                mlp.fc1.*                feed_forward width
    contract.*              mlp.c_proj.*              mlp.fc2.*                width feed_forward
"""),
)
