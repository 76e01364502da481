"""Differences in full (LyCORIS' "full" and "norm"), and replaced weights (ComfyUI's set_weight).

W' = W + s diff                             of a matrix, a convolution or a norm
b' = b + s diff_b                           of its bias, beside any kind of change of the weight
"""

from __future__ import annotations

from sdscratch.addons.kinds.kind import Kind, same

__all__ = ["BIASES", "FULL", "NORM", "SET"]

BIASES = ("diff_b", "b_norm")  # roles of what is added to a bias

FULL = Kind(
    "full",
    (frozenset({"diff"}),),
    lambda shapes, shape: same(shapes["diff"], shape),
    delta=lambda operands, weight: operands["diff"].view(weight.shape),
)
NORM = Kind(
    "norm",
    (frozenset({"w_norm"}),),
    lambda shapes, shape: len(shape) == 1 and shapes["w_norm"] == shape,
    delta=lambda operands, weight: operands["w_norm"],
)
SET = Kind(
    "replacement",
    (frozenset({"set_weight"}),),
    lambda shapes, shape: same(shapes["set_weight"], shape),
    # whatever the strength (ComfyUI)
    turned=lambda operands, weight, strength: operands["set_weight"].view(weight.shape),
)
