"""Every step in pictures and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image
from torch import Tensor

from sdscratch.explain.capture import Run, Step
from sdscratch.explain.charts import Axis, Chart, number
from sdscratch.explain.inline import grey, photo, tiles, two_sided
from sdscratch.explain.updates import Update, rms
from sdscratch.explain.views.frames import Frames, pooled, spread
from sdscratch.explain.views.levels import SHOWN_LATENT

__all__ = ["loop_view", "written"]

Shown = Callable[[Sequence[Tensor]], list[Image.Image]]

DECODED = 32  # positions a side of what is decoded for a preview: larger latents are made smaller first
FILM = 8  # pictures in the strip at the head of the page


def loop_view(run: Run, frames: Frames, show: Shown) -> dict[str, Any]:
    """What the stage shows, with its pictures put into `frames`.

    Args:
        show: latents [c, h, w] → pictures, roughly and at once.
    """
    kept = dict(run.steps.items())
    steps = list(kept.values())
    frames.index("loop", list(kept))
    pulls = [step.pull for step in steps]
    most = max(
        [float(pull.abs().flatten().quantile(0.999)) for pull in pulls if pull is not None], default=0.0
    )
    frames.images["x"] = "loop", [latent(scaled(step.before, step.asked.sigma), 3.0) for step in steps]
    frames.images["noise"] = "loop", [latent(step.noise, 3.0) for step in steps]
    guided = any(pull is not None for pull in pulls)
    if guided:
        nothing = steps[0].before * 0.0
        frames.images["pull"] = "loop", [latent(nothing if p is None else p, most) for p in pulls]
    frames.photos["x0"] = "loop", [photo(each) for each in show([small(s.asked.denoised) for s in steps])]
    if guided:
        frames.photos["with"] = "loop", [photo(e) for e in show([small(s.asked.with_prompt) for s in steps])]
        without = [s.asked.denoised if s.asked.without is None else s.asked.without for s in steps]
        frames.photos["without"] = "loop", [photo(each) for each in show([small(each) for each in without])]
    add_texts(run, steps, frames)
    return {
        "guided": guided,
        "pull": number(most),
        "film": [
            {"step": list(kept)[i], "photo": frames.photos["x0"][1][i]} for i in spread(len(steps), FILM)
        ],
        "shape": tuple(steps[0].before.shape),
        "chart": approach(run, steps),
        "evaluations": sum(step.evaluations for step in steps),
        "measured": not steps[-1].update.exact,
        "kept": len(steps),
        "second": run.second,
    }


def scaled(x: Tensor, sigma: float) -> Tensor:
    """A latent as the U-Net sees it: of variance about 1 at every step."""
    return x / math.sqrt(1.0 + sigma**2)


def latent(x: Tensor, most: float) -> str:
    """The channels of a latent, side by side."""
    return grey(tiles(two_sided(pooled(x, SHOWN_LATENT), most)))


def small(x: Tensor) -> Tensor:
    """What is decoded of a latent for a preview."""
    return pooled(x, DECODED)


def add_texts(run: Run, steps: Sequence[Step], frames: Frames) -> None:
    """The numbers of every step, as the page shows them."""
    numbers = run.numbers
    frames.index("step", list(range(len(numbers))))
    last = numbers[-1] if numbers else None

    def after(index: int) -> float | None:
        known = numbers[index].next_sigma
        if known is not None or numbers[index] is last:
            return known
        return numbers[index + 1].sigma

    frames.texts |= {
        "number": ("step", [f"{index + 1}" for index in range(len(numbers))]),
        "sigma": ("step", [number(each.sigma, 4) for each in numbers]),
        "next": ("step", [number(after(index), 4) for index in range(len(numbers))]),
        "timestep": ("step", [number(each.timestep, 5) for each in numbers]),
        "alpha": ("step", [number(1.0 / (1.0 + each.sigma**2), 3) for each in numbers]),
        "rms-x": ("step", [number(each.x, 4) for each in numbers]),
        "rms-noise": ("step", [number(each.noise, 4) for each in numbers]),
        "rms-x0": ("step", [number(each.denoised, 4) for each in numbers]),
        "rms-pull": ("step", [number(each.pull, 3) for each in numbers]),
        "update": ("loop", [written(step.update, step.evaluations) for step in steps]),
        "shown": ("loop", [f"{step.index + 1}" for step in steps]),
    }


def written(update: Update, evaluations: int) -> str:
    """A step as a sum in numbers: `x′ = 0.63 x + 0.54 D − 0.17 D₋₁`.

    Args:
        evaluations: how many of the estimates are this step's own; the first of them is D.
    """
    names = [*(f"D₍{k}₎" if k > 1 else "D" for k in range(evaluations, 0, -1)), *(f"D₋{i}" for i in "₁₂₃")]
    terms = [(update.keep, "x"), *zip(update.estimates, names, strict=False)]
    least = 0.0 if update.exact else 5e-4
    shown = [(value, name) for value, name in terms if abs(value) > least]
    if update.noise > (0.0 if update.exact else 1e-4):
        shown.append((update.noise, "ε"))
    text = ""
    for value, name in shown:
        sign = " − " if value < 0.0 else " + "
        text += f"{sign if text else sign.strip().replace('+', '')}{number(abs(value), 4)} {name}"
    return f"x′ {'=' if update.exact else '≈'} {text or '0'}"


def approach(run: Run, steps: Sequence[Step]) -> Markup:
    """How far each step's estimate of x₀ is from the last one's, and what guidance adds."""
    final = steps[-1].asked.denoised
    total = max(len(run.numbers), 2)
    away = [(float(step.index + 1), rms(step.asked.denoised - final)) for step in steps]
    pulls = [(float(i + 1), n.pull) for i, n in enumerate(run.numbers) if n.pull is not None]
    top = max([value for _, value in [*away, *pulls]] + [1e-6]) * 1.08
    ticks = sorted({1, *(round(1 + share * (total - 1)) for share in (0.25, 0.5, 0.75, 1.0))})
    chart = Chart(
        "Distance of each estimate from the last one, and size of what guidance adds, by step",
        Axis(1.0, float(total), "step", tuple((float(t), f"{t}") for t in ticks)),
        Axis(0.0, top, "RMS", tuple((top * s / 1.08, number(top * s / 1.08, 2)) for s in (0.0, 0.5, 1.0))),
        height=190.0,
    )
    chart.line(away, "curve")
    chart.dots(away, "step", 2.0)
    if pulls:
        chart.line(pulls, "pull")
    chart.marker("step", [(float(i + 1), nearest(away, i + 1)) for i in range(len(run.numbers))])
    return chart.svg()


def nearest(values: Sequence[tuple[float, float]], step: int) -> float:
    """The value at a step, or at the nearest that there is."""
    return min(values, key=lambda each: abs(each[0] - step))[1]
