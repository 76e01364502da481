"""Gradient checkpointing: memory for time (Chen et al. 2016)."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from sdscratch.models.clip import Layer
from sdscratch.models.layers import ResidualBlock
from sdscratch.models.taesd import TinyBlock
from sdscratch.models.unet import SpatialTransformer

__all__ = ["recompute_blocks"]

BLOCKS = (ResidualBlock, SpatialTransformer, Layer, TinyBlock)  # the rest keeps nothing large


def recompute_blocks(network: nn.Module) -> None:
    """From now on keep of a network's blocks only what goes in, and compute the rest again backwards.

    Results and gradients stay the same, bit for bit; a step takes about a third longer. The blocks stay what
    they are and keep their names: each gets a `forward` of its own. None of them draws random numbers.
    """
    for block in network.modules():
        if isinstance(block, BLOCKS):
            again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            object.__setattr__(block, "forward", again)
