"""A network as a GPU likes it: recorded once, played back at every step; compiled where asked for.

Every way here computes the same network; where one cannot be had, the next slower one is taken, and the log
says why.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import sdpa_kernel

from sdscratch.device import Placement
from sdscratch.fast.backends import attention_shape, fastest_attention
from sdscratch.fast.compiled import compiled
from sdscratch.fast.compute import Compute, Input, Outputs
from sdscratch.fast.graphs import Recorded, cuda_recorder
from sdscratch.hardware import device_kind
from sdscratch.models.config import UNetConfig

__all__ = ["accelerate"]


def accelerate(compute: Compute, placement: Placement, config: UNetConfig | None) -> Compute:
    """A network's computation in the fastest way that this placement has; on a CPU that is itself.

    Args:
        compute: the latent [n, c, h, w], and what else the network takes → what it gives.
        placement: where, and whether it may be compiled.
        config: tells the shapes of attention; None for a network that is no U-Net.
    """
    if placement.compiled:
        compute = compiled(compute)
    if device_kind(placement.device) != "cuda":
        return compute

    if config is None:
        return Recorded(compute, cuda_recorder(placement.device))

    def attentive(x: Tensor, *others: Input) -> Outputs:
        shape = attention_shape(config, x.shape)
        with sdpa_kernel(
            list(fastest_attention(placement.device, placement.dtype, shape)), set_priority=True
        ):
            return compute(x, *others)

    return Recorded(attentive, cuda_recorder(placement.device))
