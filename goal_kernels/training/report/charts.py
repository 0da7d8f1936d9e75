"""Line charts as inline SVG that follow the page's colours, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 460, 270  # user units; text of 13 units stays legible at phone width
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 40
MOST_POINTS = 400  # a chart this wide shows no more
TICKS = 5


@dataclass(frozen=True)
class Series:
    """A named line: points (x, y) with x ascending."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes:
        title: heading of the figure.
        x_label, y_label: axes, units included.
        series: at most four lines; lines without points are left out.
        note: a sentence on how to read it.
        logarithmic: y axis in powers of ten; values that are not positive are left out.
        band: (start, end, name) of a shaded range of x, or None.
        y_range: fixed range of y, or None to fit the data.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""
    logarithmic: bool = False
    band: tuple[float, float, str] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map of [low, high] to the range of pixels [start, stop]."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Position of `value` in user units."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the axis: multiples of 1, 2 or 5, or 1-2-5 steps when logarithmic."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 2 else (1,)
            grid = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        else:
            rough = (self.high - self.low) / TICKS
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
            first = math.ceil(self.low / step - 1e-9)
            grid = [(first + i) * step for i in range(2 * TICKS + 2)]
        slack = 1e-9 * abs(self.high)
        return [tick for tick in grid if self.low - slack <= tick <= self.high + slack]


def chart_html(chart: Chart) -> str:
    """The chart as a `<figure>` with title, legend, drawing and note; "" if it has no points."""
    series = [_thinned(line, chart.logarithmic) for line in chart.series]
    series = [line for line in series if line.points]
    if not series:
        return ""
    keys = "".join(
        f'<li><span class="key s{i}"></span>{escape(line.name)}</li>'
        for i, line in enumerate(series)
    )
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    return (
        f"<figure><figcaption>{escape(chart.title)}</figcaption>"
        f'<ul class="legend">{keys}</ul>{_drawing(chart, series)}{note}</figure>'
    )


def _thinned(line: Series, positive_only: bool) -> Series:
    """At most MOST_POINTS of the finite points, the last one always among them."""
    points = [p for p in line.points if math.isfinite(p[1]) and (p[1] > 0 or not positive_only)]
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    return Series(line.name, points[::-1][::stride][::-1])


def _axes(chart: Chart, series: Sequence[Series]) -> tuple[Axis, Axis]:
    """Axes that hold every point, level and band; never of zero extent."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    low, high = chart.y_range or (min(ys), max(ys))
    if chart.logarithmic:
        low, high = low / 1.15, high * 1.15
    elif chart.y_range is None:
        margin = 0.06 * (high - low) or 0.5
        low, high = (low if low == 0 else low - margin), high + margin
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1
    return (
        Axis(min(xs), right, LEFT, WIDTH - RIGHT),
        Axis(low, high, HEIGHT - BOTTOM, TOP, chart.logarithmic),
    )


def _drawing(chart: Chart, series: Sequence[Series]) -> str:
    """The `<svg>` of the chart; its numbers in words go to assistive technology."""
    x, y = _axes(chart, series)
    spoken = "; ".join(
        f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in series
    )
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{chart.title}: {spoken}")}">',
        _band(chart.band, x),
        *(_horizontal_tick(tick, y) for tick in y.ticks()),
        *(_vertical_tick(tick, x) for tick in x.ticks()),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{escape(chart.x_label)}</text>',
        f'<text class="axis" transform="rotate(-90)" x="{-(TOP + HEIGHT - BOTTOM) / 2}" y="12" '
        f'text-anchor="middle">{escape(chart.y_label)}</text>',
        *(_line(i, line, x, y) for i, line in enumerate(series)),
        "</svg>",
    ]
    return "".join(parts)


def _band(band: tuple[float, float, str] | None, x: Axis) -> str:
    if band is None or band[1] <= x.low:
        return ""
    start, end = x.place(max(band[0], x.low)), x.place(min(band[1], x.high))
    height = HEIGHT - BOTTOM - TOP
    return (
        f'<rect class="band" x="{start:.1f}" y="{TOP}" width="{end - start:.1f}" '
        f'height="{height}"/><text class="tick" x="{start + 5:.1f}" '
        f'y="{HEIGHT - BOTTOM - 7}">{escape(band[2])}</text>'
    )


def _horizontal_tick(tick: float, y: Axis) -> str:
    at = y.place(tick)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
    )


def _vertical_tick(tick: float, x: Axis) -> str:
    at = x.place(tick)
    return (
        f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" '
        f'text-anchor="middle">{tick:.4g}</text>'
    )


def _line(index: int, line: Series, x: Axis, y: Axis) -> str:
    """A polyline, and a dot on its last point so that a line of one point shows."""
    path = " ".join(f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in line.points)
    last = line.points[-1]
    return (
        f'<polyline class="line s{index}" points="{path}"><title>{escape(line.name)}</title>'
        f'</polyline><circle class="dot s{index}" cx="{x.place(last[0]):.1f}" '
        f'cy="{y.place(last[1]):.1f}" r="3"/>'
    )
