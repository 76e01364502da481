"""Random weights in a real model's shape, so that everyone can compare machines: in memory, or as a file."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.checkpoints.writer import Model, write_single
from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write
from sdscratch.models.config import ModelConfig
from sdscratch.options import SD1_DEFAULTS, Defaults
from sdscratch.text.tokenizer import Tokenizer

__all__ = ["RandomModel", "random_model", "write_random_model"]


@dataclass(frozen=True)
class RandomModel(ModelFiles):
    """Draws its weights when a network is loaded: the same numbers on every device, in every precision."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Bytes and nothing else: which tokens a prompt becomes does not change the time."""
        return Tokenizer.from_merges([])

    def hash(self) -> str:
        """There is no file to be known by."""
        raise SdscratchError("a random model has no file, and so no hash")

    def load(self, part: Part, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
        """One network of random weights, ready to run."""
        network = empty_network(part, self.config)
        state = {
            name: draw(f"{part} {name}", tensor).to(device, dtype)
            for name, tensor in network.state_dict().items()
        }
        network.load_state_dict(state, strict=True, assign=True)
        return network.eval().requires_grad_(False)


def random_model(name: str, config: ModelConfig, defaults: Defaults = SD1_DEFAULTS) -> RandomModel:
    """A model of this shape that stands nowhere."""
    return RandomModel(
        name=name,
        path=Path(name),
        layout="ldm",
        config=config,
        defaults=defaults,
        stored={},
        dropped=(),
        has_ema=False,
        ema=False,
        metadata={},
    )


def write_random_model(path: Path, config: ModelConfig, defaults: Defaults = SD1_DEFAULTS) -> None:
    """The same weights as a file in LDM layout, float32, for what reads files; drawn one by one.

    Raises:
        SdscratchError: the operating system refuses.
    """

    def read(weight: Weight) -> Tensor:
        return draw(f"{weight.part} {weight.name}", torch.empty(weight.shape, device="meta"))

    dtypes = dict.fromkeys(weights(config), "F32")
    model = Model(config, dtypes, read, None, defaults, {"made_by": "random weights"}, {})
    with atomic_write(path, overwrite=True) as file:
        write_single(file, model, lambda _: None)


def draw(name: str, like: Tensor) -> Tensor:
    """A weight of `like`'s shape: norms the identity, biases zero, matrices that keep their input's scale."""
    if like.dim() == 1:
        return torch.ones(like.shape) if name.endswith("weight") else torch.zeros(like.shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scale = 1.0 / math.sqrt(like[0].numel())  # of a table of embeddings: one row
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).mul_(scale)
