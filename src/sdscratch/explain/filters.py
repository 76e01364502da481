"""Colour scales as SVG filters: pictures are grey, and the page colours them, in light and in dark.

A scale is a row of colours in equal distances; between them they are mixed. What has two sides goes from blue
through the paper's own colour to orange, what has one from the paper to the darkest or brightest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

__all__ = ["SCALES", "filters", "gradient"]

SCALES: Mapping[str, Sequence[str]] = {
    "two-light": ("#174a7c", "#4d86b8", "#a9c8e0", "#f7f4ee", "#f2bf9e", "#d9753f", "#99330f"),
    "two-dark": ("#8cc4f5", "#4a8ac4", "#294c6e", "#1c1b1f", "#6b3a22", "#c7652f", "#ffb083"),
    "one-light": ("#f7f4ee", "#f5d9b0", "#eca566", "#d1602f", "#8c2a31", "#3f1232"),
    "one-dark": ("#1c1b1f", "#45203c", "#8a2f3f", "#cf5a33", "#f0a257", "#fdeabf"),
}
GLOW = ("#ffb000", "#ff9500", "#ff7a00", "#ff5a14", "#ff3d1f")  # where words look, over a picture
ALPHA = (0.0, 0.3, 0.52, 0.68, 0.8)


def filters() -> Markup:
    """All filters, in an SVG that shows nothing itself."""
    made = [scale(name, colours) for name, colours in SCALES.items()]
    made.append(glow())
    return Markup(
        '<svg class="filters" width="0" height="0" aria-hidden="true" focusable="false">{}</svg>'
    ).format(Markup().join(made))


def scale(name: str, colours: Sequence[str]) -> Markup:
    """A filter that gives every grey level its colour."""
    return Markup(
        '<filter id="{}" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
        "<feComponentTransfer>{}</feComponentTransfer></filter>"
    ).format(name, functions(colours))


def glow() -> Markup:
    """A filter that makes light of grey: dark is clear, bright is glowing."""
    alpha = Markup('<feFuncA type="table" tableValues="{}"/>').format(" ".join(f"{each:g}" for each in ALPHA))
    return Markup(
        '<filter id="glow" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
        '<feColorMatrix type="matrix" values="1 0 0 0 0  0 1 0 0 0  0 0 1 0 0  1 0 0 0 0"/>'
        "<feComponentTransfer>{}{}</feComponentTransfer></filter>"
    ).format(functions(GLOW), alpha)


def functions(colours: Sequence[str]) -> Markup:
    """The tables of red, green and blue."""
    channels = zip(
        *[[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours], strict=True
    )
    return Markup().join(
        Markup('<feFunc{0} type="table" tableValues="{1}"/>').format(
            name, " ".join(f"{value:.3f}" for value in values)
        )
        for name, values in zip("RGB", channels, strict=True)
    )


def gradient(name: str) -> str:
    """A scale as CSS has it, for its legend."""
    return f"linear-gradient(90deg, {', '.join(SCALES[name])})"
