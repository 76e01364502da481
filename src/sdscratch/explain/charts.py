"""Charts as inline SVG, made here: axes, lines, bars; colours and fonts are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Axis", "Chart", "number"]

LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 34.0


@dataclass(frozen=True)
class Axis:
    """A scale from values to places.

    Attributes:
        ticks: where it is labelled, with what.
        log: whether equal ratios are equal distances.
    """

    low: float
    high: float
    label: str
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one; beyond, those."""
        measure: Callable[[float], float] = math.log if self.log else float
        value = min(max(value, self.low), self.high)
        return (measure(value) - measure(self.low)) / (measure(self.high) - measure(self.low))


class Chart:
    """One chart; what is drawn later lies above.

    Args:
        title: what a screen reader says of it.
    """

    def __init__(self, title: str, x: Axis, y: Axis, width: float = 420.0, height: float = 220.0) -> None:
        self.title, self.x, self.y, self.width, self.height = title, x, y, width, height
        self._drawn: list[Markup] = []

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values is drawn."""
        across = LEFT + self.x.share(x) * (self.width - LEFT - RIGHT)
        up = self.height - BOTTOM - self.y.share(y) * (self.height - TOP - BOTTOM)
        return round(across, 1), round(up, 1)

    def line(self, values: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through values."""
        points = " ".join(f"{a},{b}" for a, b in (self.place(*each) for each in values))
        self._drawn.append(Markup('<polyline class="line {}" points="{}"/>').format(kind, points))

    def dots(self, values: Sequence[tuple[float, float]], kind: str, radius: float = 2.5) -> None:
        """A dot at each."""
        for each in values:
            a, b = self.place(*each)
            dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"/>')
            self._drawn.append(dot.format(kind, a, b, radius))

    def bars(self, values: Sequence[tuple[float, float, float]], kind: str) -> None:
        """A bar for each (from, to, height)."""
        for low, high, top in values:
            (a, b), (c, d) = self.place(low, top), self.place(high, self.y.low)
            bar = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"/>')
            self._drawn.append(bar.format(kind, a, b, round(max(c - a - 0.6, 0.4), 1), round(d - b, 1)))

    def marker(self, name: str, values: Sequence[tuple[float, float]], kind: str = "now") -> Markup:
        """A mark that follows the step: the page moves it to the place of each step.

        Returns:
            What was added.
        """
        places = ";".join(f"{a},{b}" for a, b in (self.place(*each) for each in values))
        first = self.place(*values[0]) if values else (0.0, 0.0)
        mark = Markup(
            '<g class="marker {kind}" data-marker="{name}" data-places="{places}" '
            'transform="translate({a} {b})"><circle r="5"/></g>'
        ).format(kind=kind, name=name, places=places, a=first[0], b=first[1])
        self._drawn.append(mark)
        return mark

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """A few words at a pair of values."""
        a, b = self.place(x, y)
        label = Markup('<text class="label {}" x="{}" y="{}" text-anchor="{}">{}</text>')
        self._drawn.append(label.format(kind, a, b, anchor, text))

    def svg(self) -> Markup:
        """The chart."""
        return Markup(
            '<svg class="chart" viewBox="0 0 {w:g} {h:g}" role="img" aria-label="{title}">{axes}{drawn}</svg>'
        ).format(
            w=self.width,
            h=self.height,
            title=self.title,
            axes=Markup().join([*self._axis_x(), *self._axis_y()]),
            drawn=Markup().join(self._drawn),
        )

    def _axis_x(self) -> list[Markup]:
        bottom = self.height - BOTTOM
        drawn = [
            Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, self.width - RIGHT, bottom, bottom
            )
        ]
        for value, label in self.x.ticks:
            a = self.place(value, self.y.low)[0]
            drawn.append(
                Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                    a, bottom + 13, label
                )
            )
        title = Markup('<text class="title" x="{}" y="{}" text-anchor="end">{}</text>')
        drawn.append(title.format(self.width - RIGHT, self.height - 4, self.x.label))
        return drawn

    def _axis_y(self) -> list[Markup]:
        drawn = []
        for value, label in self.y.ticks:
            b = self.place(self.x.low, value)[1]
            grid = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
            drawn.append(grid.format(LEFT, self.width - RIGHT, b, b))
            tick = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
            drawn.append(tick.format(LEFT - 6, b + 3.5, label))
        title = Markup('<text class="title" x="{}" y="{}">{}</text>')
        drawn.append(title.format(2, 9, escape(self.y.label)))
        return drawn


def number(value: float | None, digits: int = 3) -> str:
    """A number as people read it: so many figures that count, a real minus, no needless exponent."""
    if value is None:
        return "–"
    if value == 0.0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text:
        exponent = math.floor(math.log10(abs(value)))
        if -5 <= exponent < 7:
            text = f"{value:.{max(0, digits - 1 - exponent)}f}"
    return text.replace("-", "−")
