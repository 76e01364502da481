"""Attention as the paper has it; a module without parameters, so that `fast` can put its own in its place.

Shapes: n pictures or prompts, t query tokens, s key tokens, d numbers a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DotProductAttention"]


class DotProductAttention(nn.Module):
    """softmax(QKᵀ/√d)·V in `heads` parallel heads (Vaswani et al. 2017, eq. 1).

    Args:
        causal: position i sees positions 0 to i alone.
    """

    def __init__(self, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[n, t, heads·d], and twice [n, s, heads·d] → [n, t, heads·d]."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # [n, heads, t, d]
        return mixed.transpose(1, 2).flatten(2)
