"""What the tensors of a LoRA file are called, and which weight of the model each belongs to.

Underscores for dots make kohya's names ambiguous, so no name is ever taken apart: the model's own list of
weights is spelled in every way that tools use, all of them with underscores, and a file's name is looked up
in it. This module imports no torch.

    kohya       lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight
                lora_unet_input_blocks_1_1_…_attn1_to_q.lora_down.weight, where a tool keeps LDM's names
    diffusers   unet.down_blocks.0.….attn1.processor.to_q_lora.down.weight, later ….to_q.lora.down.weight
    PEFT        base_model.model.down_blocks.0.….attn1.to_q.lora_A.weight
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal

from sdscratch.checkpoints.layouts import Part, Weight, weights
from sdscratch.models.config import ModelConfig

__all__ = ["Role", "kohya_name", "part_of", "place", "places", "split_name"]

Role = Literal["down", "up", "alpha"]  # alpha: the number that the product up·down is scaled by

# Endings of a tensor's name; what is left of it names the module.
ENDINGS: Mapping[Role, re.Pattern[str]] = {
    "down": re.compile(r"(\.lora_down|\.lora_A(\.\w+)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight\Z"),
    "up": re.compile(r"(\.lora_up|\.lora_B(\.\w+)?|[._]lora\.up|\.lora_linear_layer\.up)\.weight\Z"),
    "alpha": re.compile(r"\.alpha\Z"),
}
WRAPPER = r"(base_model\.model\.)?"
BEGINNING = re.compile(
    rf"\A{WRAPPER}((lora_unet_|unet\.|(model\.)?diffusion_model\.)|(lora_te1?_|text_encoder\.))?{WRAPPER}"
)
KOHYA_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
# Ends of diffusers' module names, and what older versions and other tools call them.
OTHER_ENDS = {
    "to_out_0": "to_out",
    "self_attn_q_proj": "self_attn_to_q",
    "self_attn_k_proj": "self_attn_to_k",
    "self_attn_v_proj": "self_attn_to_v",
    "self_attn_out_proj": "self_attn_to_out",
}


def split_name(name: str) -> tuple[str, Role] | None:
    """A tensor's name as its module and what it is of it; None where it is no part of a LoRA."""
    for role, ending in ENDINGS.items():
        if match := ending.search(name):
            return name[: match.start()], role
    return None


def place(module: str) -> str:
    """A file's name for a module in the spelling of `places`."""
    return BEGINNING.sub("", module).replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")


def kohya_name(weight: Weight) -> str:
    """What kohya's scripts, and so the web UIs, call the module that a weight belongs to."""
    folder, _, path = weight.diffusers.removesuffix(".weight").partition("/")
    return KOHYA_PREFIXES[folder] + path.replace(".", "_")


def part_of(module: str) -> Part:
    """Whether a module is the text encoder's or the U-Net's, by its name alone."""
    return "text" if place(module).startswith("encoder_layers_") else "unet"


@lru_cache(maxsize=16)
def places(config: ModelConfig) -> Mapping[str, Weight]:
    """Every weight that a LoRA can change, under every name that its module goes by."""
    return {name: weight for weight in weights(config) for name in _names(weight)}


def _names(weight: Weight) -> Iterator[str]:
    layered = weight.part == "unet" or (weight.part == "text" and weight.name.startswith("layers."))
    if not layered or not weight.name.endswith(".weight") or len(weight.shape) < 2:
        return
    diffusers = weight.diffusers.partition("/")[2]
    for path in (diffusers, weight.ldm) if weight.part == "unet" else (diffusers,):
        name = place(path.removesuffix(".weight"))
        yield name
        for end, other in OTHER_ENDS.items():
            if name.endswith(end):
                yield name.removesuffix(end) + other
