"""U-Nets with less in them, whose single files say nothing of it: the shape is read off the tensors.

BK-SDM (Kim et al. 2023) leaves out one residual block of two on every level (base), the middle as well
(small), and the innermost level (tiny); SDXS (Song et al. 2024) also the first level's transformers. Files
made by diffusers' script keep Stable Diffusion 1.x's numbers for what is left, with gaps; ours, and CompVis'
own, count without them. LCM's models (Luo et al. 2023) are told the guidance.

>>> without_gaps(["input_blocks.1.0.in_layers.0.bias", "input_blocks.3.0.op.bias"])
{'input_blocks.1.0.in_layers.0.bias': 'input_blocks.1.0.in_layers.0.bias', \
'input_blocks.3.0.op.bias': 'input_blocks.2.0.op.bias'}

No module here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sdscratch.checkpoints.layouts.rows import Shape
from sdscratch.models.config import UNetConfig

__all__ = ["without_gaps", "without_some"]

GROUP = re.compile(r"(.*(?:in|out)put_blocks)\.(\d{1,3})\.(\d)\.(.*)", re.DOTALL)
CONV = "out_layers.3.weight"
PREFIX = "model.diffusion_model."


def without_some(plain: UNetConfig, shapes: Mapping[str, Shape]) -> UNetConfig:
    """The shape of a U-Net like `plain` of which some is left out; `plain` itself where nothing tells.

    Args:
        shapes: of an LDM file's tensors, by name.
    """
    own = {name.removeprefix(PREFIX): shape for name, shape in shapes.items() if name.startswith(PREFIX)}
    told = own.get("time_embed.cond_proj.weight", ())
    guidance = told[1] if len(told) == 2 else None
    levels: list[list[tuple[int, bool]]] = [[]]  # of each residual block, its width, and whether it attends
    numbers = {int(match[2]) for match in map(GROUP.fullmatch, own) if match and match[1] == "input_blocks"}
    for number in sorted(numbers):
        if shape := own.get(f"input_blocks.{number}.0.{CONV}"):
            levels[-1].append((shape[0], f"input_blocks.{number}.1.norm.weight" in own))
        elif f"input_blocks.{number}.0.op.weight" in own:
            levels.append([])
    whole = replace(plain, guidance=guidance)
    if any(len(level) != len(levels[0]) or len(set(level)) != 1 for level in levels):
        return whole  # something is missing, and what it is will be said by name
    multipliers = tuple(level[0][0] // plain.channels for level in levels)
    middle = any(name.startswith("middle_block.") for name in own)
    if len(levels[0]) == plain.residual_blocks and multipliers == plain.multipliers:
        return whole  # without a middle as well: none is known, and it would be damage
    return replace(
        whole,
        multipliers=multipliers,
        attends=tuple(level[0][1] for level in levels),
        residual_blocks=len(levels[0]),
        middle=middle,
    )


def without_gaps(names: Iterable[str]) -> dict[str, str]:
    """Each of an LDM file's names, and what it would be if groups were counted without gaps.

    On the way up an upsampling may have a number of its own: it belongs to the group before.
    """
    names = list(names)
    matches = {name: match for name in names if (match := GROUP.fullmatch(name))}
    kinds: dict[tuple[str, int], set[tuple[int, str]]] = {}
    for match in matches.values():
        kinds.setdefault((match[1], int(match[2])), set()).add((int(match[3]), match[4]))
    where: dict[tuple[str, int], tuple[int, int]] = {}  # a group's new number, and what its blocks begin at
    after: dict[str, tuple[int, int]] = {}  # of each way, the next number, and the newest group's blocks
    for way, number in sorted(kinds):
        next_number, blocks = after.get(way, (0, 0))
        begin = min(block for block, _ in kinds[way, number])
        if way.endswith("output_blocks") and begin > 0 and next_number:
            where[way, number] = next_number - 1, blocks - begin
            continue
        where[way, number] = next_number, 0
        after[way] = next_number + 1, 1 + max(block for block, _ in kinds[way, number])
    renamed = {}
    for name in names:
        renamed[name] = name
        if match := matches.get(name):
            number, shift = where[match[1], int(match[2])]
            renamed[name] = f"{match[1]}.{number}.{int(match[3]) + shift}.{match[4]}"
    return renamed
