"""What the tensors of a LoRA file are called, and which weights of the model each belongs to.

Underscores for dots make kohya's names ambiguous, so no name is ever taken apart: the model's own list of
weights is spelled in every way that tools use, all of them with underscores, and a file's name is looked up
in it. This module imports no torch.

    kohya       lora_unet_down_blocks_0_…_attn1_to_q.lora_down.weight
                lora_unet_input_blocks_1_1_…_attn1_to_q.lora_down.weight, where a tool keeps LDM's names
    LyCORIS     lycoris_down_blocks_0_…_attn1_to_q.hada_w1_a
    diffusers   unet.down_blocks.0.….attn1.processor.to_q_lora.down.weight, later ….to_q.lora.down.weight
    PEFT        base_model.model.down_blocks.0.….attn1.to_q.lora_A.weight
    ComfyUI     diffusion_model.input_blocks.1.1.….attn1.to_q.lora_A.weight
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from sdscratch.checkpoints.layouts import Part, Weight, weights
from sdscratch.models.config import ModelConfig

__all__ = ["Role", "Target", "kohya_name", "part_of", "place", "places", "split_name", "targets"]

Role = str  # what a tensor is of its module: the names in `kinds`; alpha, the number that a sum is scaled by

# Endings of a tensor's name; what is left of it names the module. PEFT may put an adapter's name between.
ADAPTER = r"(\.\w+)?"
SPELLED: Mapping[Role, str] = {
    "down": rf"(\.lora_down|\.lora_A{ADAPTER}|[._]lora\.down|\.lora_linear_layer\.down)\.weight",
    "up": rf"(\.lora_up|\.lora_B{ADAPTER}|[._]lora\.up|\.lora_linear_layer\.up)\.weight",
    "mid": r"\.lora_mid\.weight",
    "magnitude": rf"\.lora_magnitude_vector{ADAPTER}(\.weight)?",
    "ia3_l": rf"\.ia3_l{ADAPTER}",
    "a1": r"\.a1\.weight",
    "a2": r"\.a2\.weight",
    "b1": r"\.b1\.weight",
    "b2": r"\.b2\.weight",
}
FACTORS: tuple[Role, ...] = (
    *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)
PLAIN: tuple[Role, ...] = (
    *("alpha", "dora_scale", "rescale", "oft_blocks", "diff", "diff_b", "w_norm", "b_norm", "set_weight"),
    *("on_input", "weight"),  # (IA)³'s; all other weights stand above
)
ENDINGS: Mapping[Role, re.Pattern[str]] = {
    role: re.compile(rf"{pattern}\Z")
    for role, pattern in {
        **SPELLED,
        **{role: rf"\.{role}{ADAPTER}" for role in FACTORS},
        **{role: rf"\.{role}" for role in PLAIN},
    }.items()
}
WRAPPER = r"(base_model\.model\.)?"
BEGINNING = re.compile(
    rf"\A{WRAPPER}("
    r"(lora_te1?_|lycoris_te1?_|text_encoder\.)"
    r"|(lora_unet_|lycoris_(unet_)?|unet\.|(model\.)?diffusion_model\.)"
    r"|((text_encoders\.)?clip_l|cond_stage_model)\.transformer\."
    rf")?{WRAPPER}"
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
IN_TEXT = re.compile(r"encoder_layers_|embeddings_|final_layer_norm\Z")


class Target(NamedTuple):
    """A module of the model: what a LoRA can change of it."""

    weight: Weight
    bias: Weight | None


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
    folder, _, path = weight.diffusers.rpartition(".")[0].partition("/")
    return KOHYA_PREFIXES[folder] + path.replace(".", "_")


def part_of(module: str) -> Part:
    """Whether a module is the text encoder's or the U-Net's, by its name alone."""
    return "text" if IN_TEXT.match(place(module)) else "unet"


@lru_cache(maxsize=16)
def targets(config: ModelConfig) -> tuple[Target, ...]:
    """Every module of text encoder and U-Net."""
    modules: dict[tuple[Part, str], dict[str, Weight]] = {}
    for weight in weights(config):
        if weight.part in ("text", "unet"):
            module, _, kind = weight.name.rpartition(".")
            modules.setdefault((weight.part, module), {})[kind] = weight
    return tuple(Target(found["weight"], found.get("bias")) for found in modules.values())


@lru_cache(maxsize=16)
def places(config: ModelConfig) -> Mapping[str, Target]:
    """Every module that a LoRA can change, under every name that it goes by."""
    return {name: target for target in targets(config) for name in _names(target.weight)}


def _names(weight: Weight) -> Iterator[str]:
    diffusers = weight.diffusers.partition("/")[2]
    for path in (diffusers, weight.ldm) if weight.part == "unet" else (diffusers,):
        name = place(path.removesuffix(".weight"))
        yield name
        for end, other in OTHER_ENDS.items():
            if name.endswith(end):
                yield name.removesuffix(end) + other
