"""Upscalers of random weights, in the names of each generation of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sdscratch.checkpoints.layouts.esrgan import shapes, upscaler_names
from sdscratch.models.config import CompactConfig, RRDBConfig, UpscalerConfig

TINY_RRDB = RRDBConfig(channels=8, growth=4, blocks=2)
TINY_COMPACT = CompactConfig(channels=8, convolutions=3)


def random_tensors(config: UpscalerConfig, layout: str, prefix: str = "") -> dict[str, Tensor]:
    """A file's tensors; such that every layer shows in the result."""
    generator = torch.Generator().manual_seed(5)
    sides, names = shapes(config), upscaler_names(config, layout)
    tensors = {}
    for ours, theirs in names.items():
        spread = 0.5 if len(sides[ours]) == 1 else 1.4 / (9 * sides[ours][1]) ** 0.5
        tensors[prefix + theirs] = torch.randn(sides[ours], generator=generator) * spread
    return tensors


def write_pth(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """As Real-ESRGAN's trainer saves: a dict in a dict."""
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if head.startswith("params"):
            nested.setdefault(head, {})[rest] = tensor
    torch.save(nested or dict(tensors), path)
    return path
