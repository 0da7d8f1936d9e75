"""Charts: points land where their values say, and degenerate input draws something sensible."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from goal_kernels.training.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Series,
    chart_html,
)


def polyline(html: str) -> list[tuple[float, float]]:
    """The points of the first line drawn."""
    points = re.search(r'<polyline[^>]*points="([^"]*)"', html).group(1)
    return [tuple(map(float, point.split(","))) for point in points.split()]


def chart(points: list[tuple[float, float]], **options) -> str:
    return chart_html(Chart("A <title>", "step", "loss", [Series("a & b", points)], **options))


def test_points_are_placed_linearly() -> None:
    drawn = polyline(chart([(0, 0), (5, 10), (10, 20)], y_range=(0, 20)))
    assert drawn == [
        (LEFT, HEIGHT - BOTTOM),
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2),
        (WIDTH - RIGHT, TOP),
    ]


def test_logarithmic_axis_spaces_decades_equally_and_drops_what_is_not_positive() -> None:
    drawn = polyline(chart([(0, 1), (1, 10), (2, 100), (3, 0)], logarithmic=True))
    assert len(drawn) == 3
    assert drawn[0][1] - drawn[1][1] == pytest.approx(drawn[1][1] - drawn[2][1], abs=0.11)


@pytest.mark.parametrize("points", [[(3.0, 7.0)], [(0.0, 5.0), (1.0, 5.0)]])
def test_no_extent_is_drawn_inside_the_frame(points: list[tuple[float, float]]) -> None:
    for x, y in polyline(chart(points)):
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM


def test_nothing_to_draw_is_nothing() -> None:
    assert chart([]) == ""
    assert chart([(0, float("nan"))]) == ""


def test_long_lines_are_thinned_and_keep_their_end() -> None:
    points = [(float(i), float(i)) for i in range(5 * MOST_POINTS + 3)]
    drawn = polyline(chart(points))
    assert len(drawn) <= MOST_POINTS
    assert drawn[-1][0] == WIDTH - RIGHT
    assert drawn[-1][1] == min(y for _, y in drawn)


def test_text_is_escaped_and_spoken() -> None:
    html = chart([(0, 1), (1, 2)])
    HTMLParser().feed(html)
    assert "A &lt;title&gt;" in html
    assert "a &amp; b" in html
    assert 'aria-label="A &lt;title&gt;: a &amp; b from 1 to 2"' in html


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 100, 0, 1), [0, 20, 40, 60, 80, 100]),
        (Axis(0.13, 0.31, 0, 1), [0.15, 0.2, 0.25, 0.3]),
        (Axis(1, 10, 0, 1), [2, 4, 6, 8, 10]),
        (Axis(30, 6000, 0, 1, True), [100, 1000]),
        (Axis(40, 600, 0, 1, True), [50, 100, 200, 500]),
    ],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)


def test_band_covers_its_range() -> None:
    html = chart([(0, 1), (10, 2)], band=(0.0, 5.0, "warm-up"))
    start, width = map(
        float, re.search(r'class="band" x="([\d.]+)" y="\d+" width="([\d.]+)"', html).groups()
    )
    assert start == LEFT
    assert width == pytest.approx((WIDTH - RIGHT - LEFT) / 2, abs=0.1)
    assert 'class="band"' not in chart([(10, 1), (20, 2)], band=(0.0, 5.0, "warm-up"))
