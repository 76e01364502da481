"""The file that a training of diffusion ends with: what was trained, and of its base what was not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.writer import SAFETENSORS_NAMES, TORCH_NAMES, Model, write_single
from sdscratch.files import atomic_write
from sdscratch.models.config import ModelConfig
from sdscratch.options import Defaults
from sdscratch.text.tokenizer import Tokenizer

__all__ = ["dtype_asked", "save_trained"]


def dtype_asked(name: str, base: ModelFiles | None) -> torch.dtype:
    """What to write weights in: as asked, else as most of the base's weights are, else float16."""
    if name != "auto":
        return getattr(torch, name)  # type: ignore[no-any-return]
    if base is None:
        return torch.float16
    kinds = [base.info(weight).dtype for weight in base.stored]
    return TORCH_NAMES[max(set(kinds), key=kinds.count)]  # type: ignore[no-any-return]


def save_trained(
    path: Path,
    config: ModelConfig,
    trained: Mapping[str, nn.Module],
    rest: Callable[[Weight], Tensor],
    tokenizer: Tokenizer | None,
    defaults: Defaults,
    provenance: Mapping[str, Any],
    dtype: torch.dtype,
) -> None:
    """Write a whole model as one file in LDM layout.

    Args:
        trained: networks by part.
        rest: gives a weight of the other parts; read one by one.

    Raises:
        SdscratchError: the operating system refuses.
    """
    states = {part: network.state_dict() for part, network in trained.items()}

    def read(weight: Weight) -> Tensor:
        tensor = states[weight.part][weight.name] if weight.part in states else rest(weight)
        return tensor.detach().cpu()

    dtypes = dict.fromkeys(weights(config), SAFETENSORS_NAMES[dtype])
    model = Model(config, dtypes, read, tokenizer, defaults, provenance, {})
    with atomic_write(path, overwrite=True) as file:
        write_single(file, model, lambda _: None)
