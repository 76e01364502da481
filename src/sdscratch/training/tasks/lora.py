"""Low-rank adaptation (Hu et al. 2021): few trained numbers beside a model's frozen weights.

A layer that computes W·x computes, with its adapter,

    W·x + (alpha / rank) · up · down · x        up [out, rank], down [rank, in]        (their eq. 3)

`up` is 0 at the start, so training sets out from the model itself. Of a convolution, `down` has the kernel
and `up` is 1×1. The base weights may be bfloat16: they never change, and what changes is float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.addons.lora_names import kohya_name
from sdscratch.checkpoints.layouts import Part
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.writer import PROVENANCE, SAFETENSORS_NAMES, Entry, write_safetensors
from sdscratch.files import atomic_write
from sdscratch.models.config import ModelConfig
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.run.lora_options import LoraPlan
from sdscratch.training.tasks.diffusion import Diffusion

__all__ = ["Adapted", "Adapter", "adapt", "lora_module", "save_lora"]


class Adapter(nn.Module):
    """The change of one layer, x → (alpha / rank) · up · down · x, in the precision of x.

    Its tensors are named as in kohya's files.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, plan: LoraPlan, rng: torch.Generator) -> None:
        """
        Args:
            base: the layer to change.
            rng: what `down` is drawn from (the generator of the CPU).
        """
        super().__init__()
        self.scale = plan.scale
        self.lora_down: nn.Linear | nn.Conv2d
        self.lora_up: nn.Linear | nn.Conv2d
        if isinstance(base, nn.Conv2d):
            assert isinstance(base.padding, tuple)
            form = (base.kernel_size[0], base.stride[0], base.padding[0])
            self.lora_down = nn.Conv2d(base.in_channels, plan.rank, *form, bias=False)
            self.lora_up = nn.Conv2d(plan.rank, base.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(base.in_features, plan.rank, bias=False)
            self.lora_up = nn.Linear(plan.rank, base.out_features, bias=False)
        self.register_buffer("alpha", torch.tensor(plan.scale * plan.rank))
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=rng)  # ±1/√in
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[n, …, in] → [n, …, out], or [n, in, h, w] → [n, out, h′, w′]."""
        return self.scale * _run(self.lora_up, _run(self.lora_down, x))


def _run(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    weight = layer.weight.to(x.dtype)  # float32 ones, beside a base of 16 bits
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, layer.padding)
    return F.linear(x, weight)


class Adapted(nn.Module):
    """A frozen layer with its adapter, in the layer's place."""

    def __init__(self, base: nn.Linear | nn.Conv2d, adapter: Adapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, changed."""
        return self.base(x) + self.adapter(x)  # type: ignore[no-any-return]


def adapt(
    networks: Mapping[Part, nn.Module], config: ModelConfig, plan: LoraPlan, *, seed: int
) -> nn.ModuleDict:
    """Freeze networks and put adapters around their layers, in place; return the adapters alone.

    Their `state_dict` is what a LoRA file in kohya's naming holds, name by name.

    Args:
        networks: "unet", and "text" where the plan changes the text encoder.
        seed: of the random start of `down`; the same on every device.
    """
    rng = torch.Generator().manual_seed(seed)
    adapters: dict[str, nn.Module] = {}
    for network in networks.values():
        network.requires_grad_(False)
    for weight in plan.chosen(config):
        network, path = networks[weight.part], weight.name.removesuffix(".weight")
        base = network.get_submodule(path)
        assert isinstance(base, nn.Linear | nn.Conv2d)
        adapter = Adapter(base, plan, rng).to(base.weight.device)
        network.set_submodule(path, Adapted(base, adapter))
        adapters[kohya_name(weight)] = adapter
    return nn.ModuleDict(adapters)


def lora_module(
    files: ModelFiles, plan: LoraPlan, distributed: DistributedContext, *, seed: int
) -> tuple[nn.Module, nn.ModuleDict]:
    """What a run trains, loaded for it, and the adapters in it.

    That is the U-Net, which is then given what the text encoder says of captions; or, where the plan changes
    the text encoder, a `Diffusion`, which is given their ids. The base is in the precision of `distributed`.

    Raises:
        CheckpointError: the file has changed since it was opened.
    """
    parts: tuple[Part, ...] = ("text", "unet") if plan.text_encoder else ("unet",)
    networks = {part: files.load(part, distributed.device, distributed.precision) for part in parts}
    adapters = adapt(networks, files.config, plan, seed=seed)
    module = Diffusion(**networks) if plan.text_encoder else networks["unet"]  # type: ignore[arg-type]
    return module.to(memory_format=torch.channels_last), adapters  # type: ignore[call-overload]


def save_lora(
    path: Path,
    adapters: Mapping[str, Tensor],
    plan: LoraPlan,
    *,
    base_name: str,
    base_hash: str,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write a LoRA under kohya's names, which the web UIs and diffusers read.

    Args:
        adapters: the `state_dict` of what `adapt` gave.
        base_name: what the model is called that it was trained on.
        base_hash: its fingerprint (`checkpoints.hashing`).
        provenance: how it was trained, as JSON takes it.
        dtype: what the matrices are written in.

    Raises:
        UsageError: the name is taken and `overwrite` is not set.
        SdscratchError: the operating system refuses.
    """
    metadata = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(plan.rank),
        "ss_network_alpha": str(plan.scale * plan.rank),
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": base_name,
        "ss_new_sd_model_hash": base_hash,  # its first ten digits
        PROVENANCE: json.dumps({**provenance, "base": base_name, "base_hash": base_hash}, sort_keys=True),
    }
    if "convolution" in plan.targets:  # kohya's scripts keep the rank of 3×3 convolutions apart
        sizes = {"conv_dim": str(plan.rank), "conv_alpha": metadata["ss_network_alpha"]}
        metadata["ss_network_args"] = json.dumps(sizes)
    entries = [_entry(name, tensor, dtype) for name, tensor in adapters.items()]
    with atomic_write(path, overwrite=overwrite) as file:
        write_safetensors(file, entries, metadata, lambda _: None)


def _entry(name: str, tensor: Tensor, dtype: torch.dtype) -> Entry:
    kept = torch.float32 if name.endswith(".alpha") else dtype
    return Entry(name, SAFETENSORS_NAMES[kept], tuple(tensor.shape), tensor.detach().cpu)
