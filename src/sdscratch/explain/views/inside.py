"""Inside the U-Net: what every block gives, and where words look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdscratch.explain.capture import Run
from sdscratch.explain.charts import number
from sdscratch.explain.hooks import BlockOutput
from sdscratch.explain.inline import grey, one_sided, tiles, two_sided
from sdscratch.explain.reading import END, START
from sdscratch.explain.runner import Inside
from sdscratch.explain.views.frames import Frames, spread
from sdscratch.explain.views.topology import PARTS, Named, named_blocks, topology
from sdscratch.models.config import UNetConfig

__all__ = ["inside_view"]

KINDS = {
    "conv": "convolution",
    "residual": "residual block",
    "transformer": "transformer",
    "down": "halving",
    "up": "doubling",
}
# Numbers of the pictures that the page holds at most, of blocks and of attention: about as many bytes.
BLOCK_NUMBERS, ATTENTION_NUMBERS = 1_200_000, 2_400_000


def inside_view(run: Run, config: UNetConfig, frames: Frames) -> dict[str, Any]:
    """What the stage shows, with its pictures put into `frames`."""
    seen = list(run.inside.items())
    first = seen[0][1].outputs
    blocks = [block for block in named_blocks(config) if block.name in first]
    per_frame = sum(output.maps.numel() for output in first.values())
    shown = [seen[i] for i in spread(len(seen), max(3, BLOCK_NUMBERS // max(per_frame, 1)))]
    frames.index("blocks", [run.inside_steps[index] for index, _ in shown])
    frames.texts["blocks-shown"] = "blocks", [f"{run.inside_steps[index] + 1}" for index, _ in shown]
    cards = [card(block, [inside.outputs[block.name] for _, inside in shown], frames) for block in blocks]
    return {
        "topology": topology(blocks, first, config),
        "parts": [
            {"name": name, "blocks": [each for each in cards if each["part"] == part]}
            for part, name in zip(PARTS, ("Down", "Middle", "Up"), strict=True)
        ],
        "count": len(blocks),
        "attention": attention_view(run, seen, frames),
    }


def card(block: Named, outputs: Sequence[BlockOutput], frames: Frames) -> dict[str, Any]:
    """A block: what it is, and its output at every step that is shown."""
    most = max(float(output.maps.abs().flatten().quantile(0.995)) for output in outputs)
    strips = [grey(tiles(two_sided(output.maps, most), columns=len(output.maps))) for output in outputs]
    frames.images[f"block-{block.name}"] = "blocks", strips
    frames.texts[f"rms-{block.name}"] = "blocks", [number(output.rms) for output in outputs]
    return {
        "name": block.name,
        "part": block.part,
        "kind": KINDS[block.kind],
        "plain": block.kind,
        "shape": outputs[0].shape,
        "channels": outputs[0].channels,
    }


def attention_view(run: Run, seen: Sequence[tuple[int, Inside]], frames: Frames) -> dict[str, Any]:
    """Maps by word, resolution and step, and their means over all steps."""
    total = run.total
    sizes = list(total)
    per_frame = sum(maps.numel() for maps in total.values())
    shown = [seen[i] for i in spread(len(seen), max(2, ATTENTION_NUMBERS // max(per_frame, 1)))]
    frames.index("attention", [run.inside_steps[index] for index, _ in shown])
    frames.texts["attention-shown"] = "attention", [f"{run.inside_steps[i] + 1}" for i, _ in shown]
    maps, most = {}, {}
    for size in sizes:
        by_step = [inside.attention[size] for _, inside in shown]
        peaks = torch.stack([total[size], *by_step]).amax((0, 2, 3))
        name = f"{size[0]}×{size[1]}"
        maps[name] = {
            "mean": pictures(total[size], peaks),
            "steps": [pictures(each, peaks) for each in by_step],
        }
        most[name] = [f"{100 * float(peak):.0f} %" for peak in peaks]
    words = [{"key": key, "special": key in (START, END)} for key in run.words]
    return {
        "words": words,
        "first": first_word(run.words, total),
        "sizes": list(maps),
        "maps": maps,
        "most": most,
        "share": shares(run.words, total),
    }


def pictures(maps: Tensor, peaks: Tensor) -> list[str]:
    """A map for each word, white where that word is looked at most in all the run."""
    return [grey(one_sided(each, float(peak))) for each, peak in zip(maps, peaks, strict=True)]


def first_word(words: Sequence[str], total: Mapping[tuple[int, int], Tensor]) -> int:
    """The word that is shown first: the one whose map is the most uneven at the finest resolution."""
    inner = [index for index, word in enumerate(words) if word not in (START, END)]
    if not inner or not total:
        return 0
    finest = next(iter(total.values())).flatten(1)
    uneven = finest.amax(1) / finest.mean(1).clamp_min(1e-12)
    return max(inner, key=lambda index: float(uneven[index] * finest[index].mean().sqrt()))


def shares(words: Sequence[str], total: Mapping[tuple[int, int], Tensor]) -> list[dict[str, str]]:
    """How much of all attention each word gets, over all positions, resolutions and steps."""
    means = torch.stack([maps.flatten(1).mean(1) for maps in total.values()]).mean(0)
    return [
        {"word": word, "share": f"{100 * float(mean):.1f}", "width": f"{100 * float(mean):.2f}"}
        for word, mean in zip(words, means, strict=True)
    ]
