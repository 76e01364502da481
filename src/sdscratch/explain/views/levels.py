"""The noise that a run begins with, and the noise levels that it goes through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from sdscratch.diffusion.schedule import Schedule
from sdscratch.explain.capture import Run
from sdscratch.explain.charts import Axis, Chart, number
from sdscratch.explain.inline import grey, tiles, two_sided
from sdscratch.explain.views.frames import pooled
from sdscratch.models.unet import timestep_embedding

__all__ = ["noise_view", "schedule_view"]

BINS = 40
REACH = 4.0  # of the histogram, in standard deviations
SHOWN_LATENT = 64  # positions a side up to which latents are shown as they are
EMBEDDED_ROWS = 125


def noise_view(run: Run, latent_scale: float) -> dict[str, Any]:
    """The start latent's channels, and the histogram of its noise beside N(0, 1)."""
    assert run.start is not None
    assert run.path is not None
    noise = start_noise(run, latent_scale)
    mean, std = float(noise.mean()), float(noise.std())
    return {
        "channels": grey(tiles(two_sided(pooled(noise, SHOWN_LATENT), 3.0))),
        "shape": tuple(noise.shape),
        "mean": number(mean, 2),
        "std": number(std, 4),
        "count": f"{noise.numel():,}",
        "scale": number(run.path.start_scale, 4),
        "histogram": histogram(noise),
    }


def start_noise(run: Run, latent_scale: float) -> Tensor:
    """The noise in the start latent, as unit noise; of image-to-image with the posterior's own."""
    assert run.start is not None
    assert run.path is not None
    start = run.start
    if run.request.init is not None and run.encoder.mean is not None:
        start = start - run.encoder.mean * latent_scale * run.path.init_scale
    return start / run.path.start_scale


def histogram(noise: Tensor) -> Markup:
    """How often which value stands in the noise, beside the normal distribution."""
    counts, edges = np.histogram(noise.flatten().numpy(), BINS, (-REACH, REACH))
    width = edges[1] - edges[0]
    density = counts / (noise.numel() * width)
    top = max(0.45, float(density.max()))
    chart = Chart(
        "Histogram of the noise beside the normal distribution",
        Axis(-REACH, REACH, "value", tuple((float(v), number(float(v))) for v in (-4, -2, 0, 2, 4))),
        Axis(0.0, top, "density", tuple((v, number(v)) for v in (0.0, 0.2, 0.4))),
    )
    chart.bars([(float(a), float(a + width), float(d)) for a, d in zip(edges, density, strict=False)], "seen")
    curve = np.linspace(-REACH, REACH, 81)
    chart.line([(v, math.exp(-v * v / 2) / math.sqrt(2 * math.pi)) for v in curve.tolist()], "theory")
    chart.text(1.45, 0.33, "N(0, 1)", "theory")
    return chart.svg()


def schedule_view(run: Run, schedule: Schedule, width: int) -> dict[str, Any]:
    """σ and ᾱ over t with this run's steps, and the time embedding.

    Args:
        width: of the time embedding: the U-Net's channels.
    """
    visited = [(each.timestep, each.sigma) for each in run.numbers]
    total = len(schedule)
    alphas = [(t, 1.0 / (1.0 + sigma**2)) for t, sigma in visited]
    return {
        "sigmas": sigma_chart(schedule, visited),
        "alphas": alpha_chart(schedule, alphas),
        "embedding": embedding_image(total, width),
        "width": width,
        "total": total,
        "steps": len(visited),
        "rows": ";".join(f"{100 * (1 - t / max(total - 1, 1)):.2f}" for t, _ in visited),
        "first": number(visited[0][1], 4) if visited else "",
        "last": number(visited[-1][1], 3) if visited else "",
    }


def time_axis(total: int) -> Axis:
    ticks = tuple(
        (float(round(share * total)), f"{round(share * total)}") for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return Axis(0.0, float(total), "timestep t", ticks)


def sigma_chart(schedule: Schedule, visited: list[tuple[float, float]]) -> Markup:
    """σ over t, on a logarithmic scale."""
    low = min([float(schedule.sigmas[0]), *(sigma for _, sigma in visited if sigma > 0.0)])
    high = max([float(schedule.sigmas[-1]), *(sigma for _, sigma in visited)])
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = tuple((10.0**power, number(10.0**power)) for power in powers)
    chart = Chart(
        "σ at each timestep, and this run's steps",
        time_axis(len(schedule)),
        Axis(low, high, "σ", ticks, log=True),
    )
    chart.line([(float(t), float(schedule.sigmas[t])) for t in range(0, len(schedule), 10)], "curve")
    chart.dots(visited, "step")
    if visited:
        chart.marker("step", visited)
    return chart.svg()


def alpha_chart(schedule: Schedule, visited: list[tuple[float, float]]) -> Markup:
    """ᾱ over t."""
    ticks = tuple((v, number(v)) for v in (0.0, 0.5, 1.0))
    chart = Chart(
        "ᾱ at each timestep, and this run's steps", time_axis(len(schedule)), Axis(0.0, 1.0, "ᾱ", ticks)
    )
    chart.line([(float(t), float(schedule.alphas_bar[t])) for t in range(0, len(schedule), 10)], "curve")
    chart.dots(visited, "step")
    if visited:
        chart.marker("step", visited)
    return chart.svg()


def embedding_image(total: int, width: int) -> str:
    """The sinusoids of all timesteps, the last one on top."""
    timesteps = torch.linspace(total - 1, 0, EMBEDDED_ROWS)
    return grey(two_sided(timestep_embedding(timesteps, width), 1.0))
