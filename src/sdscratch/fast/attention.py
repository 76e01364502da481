"""softmax(QKᵀ/√d)·V, by the kernel that is fastest where it runs.

Shapes: n pictures or prompts, t query tokens, s key tokens, d numbers a head.
"""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.fast.processor import multiplies
from sdscratch.hardware import device_kind
from sdscratch.models.attention import DotProductAttention

__all__ = ["FastAttention", "swap_attention"]

# From this many tokens on, blocks of matrix products beat PyTorch's own kernel. Measured on Zen 4 with two
# threads: 16 heads of 40 numbers at 4096 tokens 399 → 211 ms, of 80 at 1024 tokens 35 → 24, of 160 at 256
# tokens 5.5 → 5.3; one head of 512 at 4096 tokens 201 → 109. Where a pair of device and precision is missing
# (float32, GPUs), PyTorch's kernel is the faster at every size; so it is where oneDNN has no such products.
BLOCKED_FROM: dict[tuple[str, torch.dtype], int] = (
    {("cpu", torch.bfloat16): 512} if multiplies(torch.bfloat16) else {}
)

# Up to so many keys, plain products are faster while learning: PyTorch's kernel is slow backwards. Measured
# likewise with one thread, forwards and backwards, 64 heads of 32 numbers at 64 tokens 13.7 → 2.6 ms, at 256
# tokens 61 → 24; 8 heads of 40 at 4096 tokens and 77 keys 45 → 19. In float32 it is the faster one.
PLAIN_UP_TO: dict[tuple[str, torch.dtype], int] = (
    {("cpu", torch.bfloat16): 256} if multiplies(torch.bfloat16) else {}
)

# Types of which a CPU's processor multiplies no matrices: there float32 is the faster, and the more exact.
WIDENED = frozenset(dtype for dtype in (torch.bfloat16, torch.float16) if not multiplies(dtype))

BLOCK = 2**21  # scores held at a time: 4 MB, which stay in the processor's cache
LANES = 16  # numbers that a matrix product handles at once: a narrower V would take as long

# How far a row's scores are lowered below their mean. What is below −7 then, sigmoid takes for eˣ but for
# 0.1 % (sigmoid(x) = eˣ(1 − eˣ + …)), a quarter of a step of bfloat16; so a row may reach 53 above its mean.
# Its largest score is never below its mean, and e⁻⁶⁰ leaves 27 more to bfloat16's smallest number, e⁻⁸⁷.
LOWERED = 60.0
EXACT = math.exp(-7.0)


def swap_attention(network: nn.Module) -> None:
    """Replace every attention of a network on a CPU, in place: for drawing, and for learning as well.

    Nothing else of the network changes: attention has no weights, and names stay what they are.
    """
    device = next((weight.device for weight in network.parameters()), None)
    if device is None or device_kind(device) != "cpu":
        return
    for name, module in list(network.named_modules()):
        if type(module) is DotProductAttention:
            network.set_submodule(name, FastAttention(module.heads, causal=module.causal))


class FastAttention(DotProductAttention):
    """`DotProductAttention` on a CPU; which way it is computed follows from each call's types and sizes."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[n, t, heads·d], and twice [n, s, heads·d] → [n, t, heads·d]."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        if device_kind(query.device) == "cpu" and query.dtype in WIDENED:
            q, k, v = (x.float() for x in (q, k, v))
        where = device_kind(query.device), query.dtype
        least, most = BLOCKED_FROM.get(where), PLAIN_UP_TO.get(where)
        learning = torch.is_grad_enabled()
        if learning and most is not None and k.shape[2] <= most:
            mixed = plain_attention(q, k, v, self.causal)
        elif least is not None and not (learning or self.causal) and min(q.shape[2], k.shape[2]) >= least:
            mixed = blocked_attention(q, k, v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return mixed.transpose(1, 2).flatten(2).to(query.dtype)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """The same as it is written, [n, heads, t, d]; all weights are held at once, for the way back."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1).to(value.dtype) @ value


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by plain matrix products over blocks of query rows, in bfloat16 on a CPU (inference alone).

    Lowering all scores of a row alike does not change its softmax. So they are lowered far enough for
    sigmoid to be exp, which oneDNN applies to the float32 scores inside the product, where exp itself would
    take a pass of its own over scores already rounded. The shift costs nothing, being one more column in Q
    (the shift) and in K (ones), and a column of ones beside V gives the sums that normalise the rows. These
    also prove that sigmoid was exp: no term exceeds its sum. A head in which it was not runs the usual way.

    Args:
        query: [n, heads, t, d]; key and value: [n, heads, s, d].

    Returns:
        [n, heads, t, d], laid out as [n, t, heads, d].
    """
    n, heads, t, d = query.shape
    query = query * d**-0.5
    shift = -(query @ key.mean(2)[..., None]) - LOWERED  # any will do; below the mean it is sure to
    queries, keys = torch.cat([query, shift], 3), F.pad(key, (0, 1), value=1.0)
    spare = -(d + 1) % LANES
    values = F.pad(F.pad(value, (0, 1), value=1.0), (0, spare))
    rows = max(1, BLOCK // key.shape[2])
    mixed = query.new_empty(n, heads, t, d + 1 + spare)
    for head in product(range(n), range(heads)):
        for q, to in zip(queries[head].split(rows), mixed[head].split(rows), strict=True):
            weights = torch.ops.mkldnn._linear_pointwise(q, keys[head], None, "sigmoid", [], "")
            torch.mm(weights, values[head], out=to)
    sums = mixed[..., d : d + 1]
    out = torch.div(mixed[..., :d], sums, out=query.new_empty(n, t, heads, d).transpose(1, 2))
    for i, h in (sums.amax((2, 3)) > EXACT).nonzero().tolist():
        q, k, v = (x[i : i + 1, h : h + 1] for x in (query, key, value))
        out[i : i + 1, h : h + 1] = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return out
