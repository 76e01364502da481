"""The loss of a run as a picture, drawn by Pillow (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sdscratch.files import atomic_write

__all__ = ["draw_curve", "ticks"]

SIZE = (960, 540)
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 40, 56  # margins
POINTS = 600  # at most; each is the mean of neighbouring steps
INK, GRID, CURVE, FAINT = "#222222", "#dddddd", "#1f6fb4", "#b9d3ea"
TEXT = 16  # pixels


def draw_curve(path: Path, steps: Sequence[float], losses: Sequence[float], title: str) -> None:
    """Every step faintly, the mean of neighbours strongly; the loss on a logarithmic scale.

    Raises:
        SdscratchError: the operating system refuses.
    """
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(TEXT)
    positive = [max(value, 1e-12) for value in losses]
    width = max(1, len(positive) // POINTS)
    chosen = range(0, len(positive), width)
    means = [_mean(positive[max(0, i - 8 * width) : i + 1]) for i in chosen]
    low, high = math.log(min(means) * 0.95), math.log(_quantile(positive, 0.995) * 1.05)
    last = max(steps[-1], 1)

    def x(step: float) -> float:
        return LEFT + (SIZE[0] - LEFT - RIGHT) * step / last

    def y(loss: float) -> float:
        share = (math.log(loss) - low) / max(high - low, 1e-9)
        return SIZE[1] - BOTTOM - (SIZE[1] - TOP - BOTTOM) * min(max(share, 0.0), 1.0)

    for tick in ticks(0, last):
        draw.line([(x(tick), TOP), (x(tick), SIZE[1] - BOTTOM)], GRID)
        draw.text((x(tick), SIZE[1] - BOTTOM + 8), f"{tick:g}", INK, font, anchor="mt")
    for tick in _log_ticks(math.exp(low), math.exp(high)):
        draw.line([(LEFT, y(tick)), (SIZE[0] - RIGHT, y(tick))], GRID)
        draw.text((LEFT - 8, y(tick)), f"{tick:g}", INK, font, anchor="rm")
    for values, colour, thickness in (([positive[i] for i in chosen], FAINT, 1), (means, CURVE, 3)):
        points = [(x(steps[i]), y(value)) for i, value in zip(chosen, values, strict=True)]
        draw.line(points if len(points) > 1 else points * 2, colour, thickness, joint="curve")
    draw.rectangle([LEFT, TOP, SIZE[0] - RIGHT, SIZE[1] - BOTTOM], outline=INK)
    draw.text((LEFT, TOP - 10), title, INK, font, anchor="ls")
    draw.text(((LEFT + SIZE[0] - RIGHT) / 2, SIZE[1] - 8), "step", INK, font, anchor="mb")
    with atomic_write(path, overwrite=True) as file:
        image.save(file, "PNG")


def ticks(low: float, high: float, count: int = 8) -> list[float]:
    """Round numbers between two, about `count` of them."""
    rough = max(high - low, 1e-12) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [round(step * index, 12) for index in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; where they are too few, round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) >= 3 else [tick for tick in ticks(low, high, 5) if tick > 0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
