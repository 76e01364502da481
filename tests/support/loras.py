"""LoRA files for tests: random ones, in every spelling that tools use, from one set of matrices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.models.config import ModelConfig
from support.checkpoints import TINY

__all__ = ["SPELLINGS", "Change", "changes", "is_attention", "kohya_name", "targets", "write_lora"]


@dataclass(frozen=True)
class Change:
    """One weight's matrices in float32: up [out, rank], down [rank, in, …]."""

    up: Tensor
    down: Tensor
    alpha: float

    def delta(self, weight: Weight) -> Tensor:
        """alpha / rank · up · down, by einsum."""
        rank = self.up.shape[1]
        return torch.einsum("or,r...->o...", self.up, self.down).reshape(weight.shape) * (self.alpha / rank)


Spelling = Callable[[Weight, Change], dict[str, Tensor]]


def targets(config: ModelConfig = TINY) -> list[Weight]:
    """What a full LoRA changes: the matrices and convolutions of text encoder (its layers) and U-Net."""
    return [
        weight
        for weight in weights(config)
        if (weight.part == "unet" or weight.name.startswith("layers.")) and weight.part in ("text", "unet")
        if weight.name.endswith(".weight") and len(weight.shape) > 1
    ]


def is_attention(weight: Weight) -> bool:
    """Whether diffusers' old layout has a name for it: an attention's four matrices."""
    return ".to_" in weight.diffusers or "self_attn" in weight.diffusers


def changes(
    chosen: Iterable[Weight], *, rank: int = 3, alpha: float = 2.0, size: float = 0.3, seed: int = 0
) -> dict[Weight, Change]:
    """Random changes, each about `size` of a weight."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for weight in chosen:
        fan_in = math.prod(weight.shape[1:])
        up = torch.randn(weight.shape[0], rank, generator=generator)
        down = torch.randn(rank, *weight.shape[1:], generator=generator)
        made[weight] = Change(up * size / (rank * fan_in) ** 0.5, down, alpha)
    return made


# --- Names -------------------------------------------------------------------------------------------------


def _module(weight: Weight) -> str:
    return weight.diffusers.removesuffix(".weight")


def kohya_name(weight: Weight) -> str:
    """What kohya's scripts call a weight's module."""
    folder, path = _module(weight).split("/")
    return {"unet": "lora_unet_", "text_encoder": "lora_te_"}[folder] + path.replace(".", "_")


def _kohya(weight: Weight, change: Change) -> dict[str, Tensor]:
    name, up = kohya_name(weight), change.up
    return {
        f"{name}.lora_down.weight": change.down,
        f"{name}.lora_up.weight": up[:, :, None, None] if len(weight.shape) == 4 else up,
        f"{name}.alpha": torch.tensor(change.alpha, dtype=torch.float16),
    }


def _kohya_ldm(weight: Weight, change: Change) -> dict[str, Tensor]:
    if weight.part == "text":
        return _kohya(weight, change)
    ours = kohya_name(weight)
    ldm = weight.ldm.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_")
    return {key.replace(ours, f"lora_unet_{ldm}"): tensor for key, tensor in _kohya(weight, change).items()}


def _scaled(change: Change) -> Tensor:
    """For layouts without an alpha."""
    return change.up * (change.alpha / change.up.shape[1])


def _dotted(down: str, up: str, prefix: str = "", end: Callable[[str], str] = str) -> Spelling:
    def spell(weight: Weight, change: Change) -> dict[str, Tensor]:
        module = prefix + end(_module(weight).replace("/", "."))
        wide = len(weight.shape) == 4
        scaled = _scaled(change)
        return {
            f"{module}{down}.weight": change.down,
            f"{module}{up}.weight": scaled[:, :, None, None] if wide else scaled,
        }

    return spell


def _processor(path: str) -> str:
    """`….attn1.to_out.0` as `….attn1.processor.to_out`, and the text encoder's as `….self_attn.to_out`."""
    head, _, leaf = path.removesuffix(".0").rpartition(".")
    old = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    return f"{head}.{old[leaf]}" if leaf in old else f"{head}.processor.{leaf}"


def _bare(path: str) -> str:
    return path.removeprefix("unet.").removeprefix("text_encoder.")


# How tools write a LoRA, and whether they can write more than attention in that way.
SPELLINGS: Mapping[str, tuple[Spelling, bool]] = {
    "kohya": (_kohya, True),
    "kohya, LDM's names": (_kohya_ldm, True),
    "diffusers, processors": (_dotted("_lora.down", "_lora.up", end=_processor), False),
    "diffusers, processors, bare": (
        _dotted("_lora.down", "_lora.up", end=lambda path: _bare(_processor(path))),
        False,
    ),
    "diffusers, layers": (_dotted(".lora.down", ".lora.up"), True),
    "diffusers, linear layers": (_dotted(".lora_linear_layer.down", ".lora_linear_layer.up"), True),
    "PEFT": (_dotted(".lora_A", ".lora_B"), True),
    "PEFT, an adapter's name": (_dotted(".lora_A.default", ".lora_B.default"), True),
    "PEFT, wrapped": (_dotted(".lora_A", ".lora_B", prefix="base_model.model."), True),
    "PEFT, wrapped, bare": (_dotted(".lora_A", ".lora_B", prefix="base_model.model.", end=_bare), True),
}  # fmt: skip


def write_lora(
    path: Path,
    made: Mapping[Weight, Change],
    spelling: str = "kohya",
    *,
    dtype: torch.dtype = torch.float32,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write a LoRA; `settings` is what diffusers notes of PEFT's beside the tensors."""
    spell, _ = SPELLINGS[spelling]
    tensors = {name: t for weight, change in made.items() for name, t in spell(weight, change).items()}
    metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(settings)} if settings else {})
    stored = {
        name: (tensor if name.endswith(".alpha") else tensor.to(dtype)).contiguous().clone()
        for name, tensor in tensors.items()
    }
    save_file(stored, path, metadata)
    return path
