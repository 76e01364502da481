"""The U-Net drawn as it is: every block a bar as high as its picture and as wide as it has channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sdscratch.explain.hooks import BlockOutput
from sdscratch.models.config import UNetConfig, unet_groups

__all__ = ["PARTS", "Named", "named_blocks", "topology"]

PARTS = ("down", "middle", "up")
TALLEST, WIDEST = 92.0, 26.0  # of the finest level, and of the most channels
GAP, GROUP_GAP, MARGIN = 2.0, 9.0, 26.0
LEVEL_STEP = 0.62  # how much lower each level stands, in heights of the one above


@dataclass(frozen=True)
class Named:
    """A block of the table with its name in the network."""

    name: str  # down.3.1
    part: str
    group: int
    kind: str
    level: int


def named_blocks(config: UNetConfig) -> list[Named]:
    """Every block of a U-Net, in the order of the computation."""
    return [
        Named(f"{part}.{group}.{number}", part, group, block.kind, block.level)
        for part, groups in zip(PARTS, unet_groups(config), strict=True)
        for group, blocks in enumerate(groups)
        for number, block in enumerate(blocks)
    ]


def topology(blocks: Sequence[Named], outputs: Mapping[str, BlockOutput], config: UNetConfig) -> Markup:
    """The diagram: down on the left, up on the right, and the skips between them."""
    finest = max(output.shape[1] for output in outputs.values())
    widest = max(output.shape[0] for output in outputs.values())
    sides = sorted({output.shape[1] for output in outputs.values()}, reverse=True)
    middles = level_middles(sides, finest)
    drawn: list[Markup] = []
    ends: dict[tuple[str, int], tuple[float, float]] = {}  # of groups: where they begin and end, across
    x, last = MARGIN, None
    for block in blocks:
        output = outputs[block.name]
        c, h, w = output.shape
        if last is not None:
            x += GAP if (block.part, block.group) == last else GROUP_GAP
        width = 3.0 + (WIDEST - 3.0) * c / widest
        height = tall(h, finest)
        y = middles[h] - height / 2
        title = f"{block.name}: {block.kind}, {c} × {h} × {w}"
        drawn.append(
            Markup(
                '<rect class="block {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1">'
                "<title>{}</title></rect>"
            ).format(block.kind, x, y, width, height, title)
        )
        begin, _ = ends.get((block.part, block.group), (x, x))
        ends[block.part, block.group] = begin, x + width
        x, last = x + width, (block.part, block.group)
    total = x + MARGIN
    bottom = max(middles[side] + tall(side, finest) / 2 for side in sides) + 26
    skips = skip_lines(blocks, outputs, ends, middles)
    marks = [
        Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{} × {}</text>').format(
            total / 2 if side == sides[-1] else center(ends, blocks, outputs, side),
            middles[side] + tall(side, finest) / 2 + 14,
            side,
            next(o.shape[2] for o in outputs.values() if o.shape[1] == side),
        )
        for side in sides
    ]
    return Markup(
        '<svg class="topology" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}{}{}</svg>'
    ).format(
        total,
        bottom,
        f"The U-Net: {len(blocks)} blocks on {len(sides)} levels, with skips from the way down to the way up",
        Markup().join(skips),
        Markup().join(drawn),
        Markup().join(marks),
    )


def tall(side: int, finest: int) -> float:
    """The height of a bar."""
    return max(8.0, TALLEST * math.pow(side / finest, 0.75))


def level_middles(sides: Sequence[int], finest: int) -> dict[int, float]:
    """The height at which each level stands."""
    middles, y = {}, 10 + TALLEST / 2
    for side in sides:
        middles[side] = y
        y += max(30.0, tall(side, finest) * LEVEL_STEP)
    return middles


def center(
    ends: Mapping[tuple[str, int], tuple[float, float]],
    blocks: Sequence[Named],
    outputs: Mapping[str, BlockOutput],
    side: int,
) -> float:
    """The middle of the groups that end at a level on the way down."""
    places = [
        ends["down", block.group]
        for block in blocks
        if block.part == "down" and outputs[block.name].shape[1] == side
    ]
    low, high = min(a for a, _ in places), max(b for _, b in places)
    return low + (high - low) / 2


def skip_lines(
    blocks: Sequence[Named],
    outputs: Mapping[str, BlockOutput],
    ends: Mapping[tuple[str, int], tuple[float, float]],
    middles: Mapping[int, float],
) -> list[Markup]:
    """A line from every group on the way down to the one that takes its output on the way up."""
    groups = [block.group for block in blocks if block.part == "down"]
    count = max(groups) + 1
    lines = []
    for group in range(count):
        last = [block for block in blocks if block.part == "down" and block.group == group][-1]
        side = outputs[last.name].shape[1]
        left = (ends["down", group][0] + ends["down", group][1]) / 2
        begin, _ = ends["up", count - 1 - group]
        y = middles[side] + 1.2 * (group - count / 2)  # so that those of one level do not hide each other
        line = Markup('<path class="skip" d="M{:.1f} {:.1f} H{:.1f}"/>')
        lines.append(line.format(left, y, begin))
    return lines
