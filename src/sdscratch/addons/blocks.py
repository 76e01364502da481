"""Block weights: how strongly a LoRA acts on each block of the U-Net (no torch).

As the web UI's extension "LoRA Block Weight" (hako-mikan) has them: 26 numbers, for the text encoder (BASE),
LDM's input_blocks (IN00 to IN11), middle_block and output_blocks (OUT00 to OUT11); or 17, for the blocks with
attention, which a plain LoRA changes; or 12, the SDXL list of the extension. Blocks that a shorter list does
not name get 0. A weight of the U-Net that lies in no block (`time_embed`, `out`) keeps its strength.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from sdscratch.errors import UsageError

__all__ = ["BLOCKS", "PRESETS", "Blocks", "block_of", "is_blocks", "parse_blocks"]

Blocks = tuple[float, ...]  # 26 numbers, in the order of BLOCKS

BLOCKS = ("BASE", *(f"IN{n:02}" for n in range(12)), "MID", *(f"OUT{n:02}" for n in range(12)))
WITH_ATTENTION = (
    "BASE",
    *(f"IN{n:02}" for n in (1, 2, 4, 5, 7, 8)),
    "MID",
    *(f"OUT{n:02}" for n in range(3, 12)),
)
OF_SDXL = ("BASE", *(f"IN{n:02}" for n in (4, 5, 7, 8)), "MID", *(f"OUT{n:02}" for n in range(6)))
LISTS: Mapping[int, tuple[str, ...]] = {len(names): names for names in (BLOCKS, WITH_ATTENTION, OF_SDXL)}

# The extension's own, 17 numbers each.
PRESETS: Mapping[str, Sequence[float]] = {
    "NONE": [0.0] * 17,
    "ALL": [1.0] * 17,
    "INS": [1.0] * 4 + [0.0] * 13,
    "IND": [1.0] + [0.0] * 3 + [1.0] * 3 + [0.0] * 10,
    "INALL": [1.0] * 7 + [0.0] * 10,
    "MIDD": [1.0] + [0.0] * 3 + [1.0] * 8 + [0.0] * 5,
    "OUTD": [1.0] + [0.0] * 7 + [1.0] * 4 + [0.0] * 5,
    "OUTS": [1.0] + [0.0] * 11 + [1.0] * 5,
    "OUTALL": [1.0] + [0.0] * 7 + [1.0] * 9,
    "ALL0.5": [0.5] * 17,
}
IN_LDM = re.compile(r"model\.diffusion_model\.(?:(input|output)_blocks\.(\d+)|middle_block)\.")


def is_blocks(text: str) -> bool:
    """Whether this can only be block weights: a preset's name, or numbers with commas."""
    return text in PRESETS or "," in text


def parse_blocks(text: str, where: str) -> Blocks:
    """Block weights by a preset's name or as 12, 17 or 26 numbers.

    Args:
        where: what they belong to, for the error.

    Raises:
        UsageError: neither.
    """
    numbers = PRESETS.get(text)
    if numbers is None:
        try:
            numbers = [float(number) for number in text.split(",")]
        except ValueError:
            raise UsageError(
                f"{where} has the block weights {text!r}; say 12, 17 or 26 numbers with commas between them, "
                f"or one of {', '.join(PRESETS)} (random ones, R, U and X, are not known)"
            ) from None
    if len(numbers) not in LISTS or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"{where} has {len(numbers)} block weights; there are 26 (BASE, IN00 to IN11, MID, OUT00 to "
            "OUT11), 17 (the blocks with attention) or 12 (SDXL's), all of them finite"
        )
    given = dict(zip(LISTS[len(numbers)], numbers, strict=True))
    return tuple(given.get(name, 0.0) for name in BLOCKS)


def block_of(ldm: str) -> int | None:
    """Which of BLOCKS a weight, by its name in an LDM file, belongs to; None for those in none."""
    if ldm.startswith("cond_stage_model."):
        return 0
    match = IN_LDM.match(ldm)
    if match is None:
        return None
    if match[1] is None:
        return BLOCKS.index("MID")
    name = f"{'IN' if match[1] == 'input' else 'OUT'}{int(match[2]):02}"
    return BLOCKS.index(name) if name in BLOCKS else None
