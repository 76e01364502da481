"""Two runs beside each other: what is different, and from which step on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from torch import Tensor

from sdscratch.explain.capture import Run
from sdscratch.explain.charts import Axis, Chart, number
from sdscratch.explain.inline import grey, one_sided
from sdscratch.explain.updates import rms
from sdscratch.explain.views.frames import Frames, pooled
from sdscratch.explain.views.levels import SHOWN_LATENT

__all__ = ["comparison", "differences"]

BEGINS = 0.1  # share of the difference at the end from which two runs count as parted


def differences(one: Run, other: Run) -> list[tuple[int, float, float]]:
    """By step that both kept: its number, and the RMS of the difference of x and of the estimates of x₀."""
    left, right = dict(one.steps.items()), dict(other.steps.items())
    return [
        (
            index,
            rms(left[index].after - right[index].after),
            rms(left[index].asked.denoised - right[index].asked.denoised),
        )
        for index in left
        if index in right and left[index].after.shape == right[index].after.shape
    ]


def comparison(one: Run, other: Run, frames: Frames) -> dict[str, Any] | None:
    """What the page says of the difference; None where there is nothing to compare.

    Args:
        frames: of the first run, which gets the pictures of where the two differ.
    """
    found = differences(one, other)
    if not found:
        return None
    apart = where(one, other, [index for index, *_ in found])
    most = max(float(each.max()) for each in apart)
    frames.index("apart", [index for index, *_ in found])
    frames.images["apart"] = "apart", [grey(one_sided(pooled(each, SHOWN_LATENT)[0], most)) for each in apart]
    frames.texts["apart"] = "apart", [number(estimate) for _, _, estimate in found]
    final = found[-1][2]
    begins = next(index for index, _, estimate in found if estimate >= BEGINS * final)
    half = next(index for index, _, estimate in found if estimate >= 0.5 * final)
    pixels = pixel_difference(one, other)
    return {
        "chart": chart(found),
        "begins": begins + 1,
        "half": half + 1,
        "most": number(most),
        "same": max(max(x, estimate) for _, x, estimate in found) == 0.0,
        "pixels": pixels,
    }


def where(one: Run, other: Run, steps: Sequence[int]) -> list[Tensor]:
    """[1, h, w] of each step: the RMS over the channels of the difference of the estimates of x₀."""
    left, right = dict(one.steps.items()), dict(other.steps.items())
    apart = [left[index].asked.denoised - right[index].asked.denoised for index in steps]
    return [each.square().mean(0, keepdim=True).sqrt() for each in apart]


def pixel_difference(one: Run, other: Run) -> str:
    """The share of pixels of which a channel differs by more than a tenth of its range."""
    assert one.picture is not None
    assert other.picture is not None
    left, right = (np.asarray(run.picture.image, dtype=np.int16) for run in (one, other) if run.picture)
    if left.shape != right.shape:
        return ""
    return f"{100 * float((np.abs(left - right).max(-1) > 25).mean()):.0f}"


def chart(found: list[tuple[int, float, float]]) -> Markup:
    """Both differences by step."""
    total = max(found[-1][0] + 1, 2)
    top = max(max(x, estimate) for _, x, estimate in found) * 1.08 or 1.0
    ticks = sorted({1, *(round(1 + share * (total - 1)) for share in (0.25, 0.5, 0.75, 1.0))})
    drawn = Chart(
        "Difference of the two runs by step: of x, and of the estimates of the picture",
        Axis(1.0, float(total), "step", tuple((float(t), f"{t}") for t in ticks)),
        Axis(
            0.0,
            top,
            "RMS of the difference",
            tuple((top * s / 1.08, number(top * s / 1.08, 2)) for s in (0.0, 0.5, 1.0)),
        ),
        height=190.0,
    )
    drawn.line([(float(index + 1), x) for index, x, _ in found], "pull")
    drawn.line([(float(index + 1), estimate) for index, _, estimate in found], "curve")
    estimates = {index: estimate for index, _, estimate in found}
    kept = list(estimates)
    places = [
        (float(step + 1), estimates[min(kept, key=lambda index: (abs(index - step), index))])
        for step in range(total)
    ]
    drawn.marker("step", places)
    return drawn.svg()
