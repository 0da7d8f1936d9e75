"""Outlines of the shapes as polygons in the square [-1, 1] x [-1, 1], y downwards."""

from __future__ import annotations

from math import atan2, cos, hypot, pi, sin

Polygon = list[tuple[float, float]]

_CURVE_POINTS = 48


def outline(shape: str) -> Polygon:
    """The outer outline of a shape of ``world.SHAPES``."""
    return _OUTLINES[shape]


def hole(shape: str) -> Polygon | None:
    """The outline of the hole in a shape; None when it has none."""
    return _arc(0.5) if shape == "ring" else None


def _arc(radius: float, x: float = 0.0, start: float = 0.0, end: float = 2 * pi) -> Polygon:
    """Points on a circle of ``radius`` around (x, 0), angles in radians from the x axis."""
    angles = [start + (end - start) * index / _CURVE_POINTS for index in range(_CURVE_POINTS + 1)]
    return [(x + radius * cos(angle), radius * sin(angle)) for angle in angles]


def _regular(corners: int) -> Polygon:
    """A regular polygon with one corner upwards."""
    return [
        (sin(2 * pi * index / corners), -cos(2 * pi * index / corners)) for index in range(corners)
    ]


def _star(points: int, inner: float) -> Polygon:
    """A star whose tips alternate with corners at radius ``inner``, one tip upwards."""
    radii = [1.0, inner] * points
    return [
        (radius * sin(pi * index / points), -radius * cos(pi * index / points))
        for index, radius in enumerate(radii)
    ]


def _cross(half: float) -> Polygon:
    """A plus sign whose bars are twice ``half`` wide: one arm, turned four times."""
    arm = [(-half, -half), (-half, -1.0), (half, -1.0)]
    turns = ((1, 0), (0, 1), (-1, 0), (0, -1))
    return [(x * c - y * s, x * s + y * c) for c, s in turns for x, y in arm]


def _crescent() -> Polygon:
    """A moon open to the right: the outer arc, and back along the arc of a shifted circle."""
    tip, centre = 0.85, 0.5
    outer = _arc(1.0, 0.0, tip, 2 * pi - tip)
    x, y = outer[0]
    bend = atan2(y, x - centre)
    inner = _arc(hypot(x - centre, y), centre, 2 * pi - bend, bend)
    return [(x + 0.15, y) for x, y in (*outer, *inner)]


def _heart() -> Polygon:
    """The usual heart curve, scaled to the square."""
    angles = [2 * pi * index / _CURVE_POINTS for index in range(_CURVE_POINTS)]
    return [
        (
            sin(angle) ** 3,
            -(13 * cos(angle) - 5 * cos(2 * angle) - 2 * cos(3 * angle) - cos(4 * angle)) / 16
            - 0.1,
        )
        for angle in angles
    ]


def _drop() -> Polygon:
    """A pointed top on a round belly."""
    belly = [(0.68 * x, 0.68 * y + 0.3) for x, y in _arc(1.0, 0.0, -0.35, pi + 0.35)]
    return [*belly, (0.0, -1.0)]


_OUTLINES: dict[str, Polygon] = {
    "disc": _arc(1.0),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "star": _star(5, 0.42),
    "ring": _arc(1.0),
    "cross": _cross(0.34),
    "diamond": [(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)],
    "hexagon": _regular(6),
    "heart": _heart(),
    "crescent": _crescent(),
    "arrow": [
        (1.0, 0.0),
        (0.15, -0.85),
        (0.15, -0.36),
        (-1.0, -0.36),
        (-1.0, 0.36),
        (0.15, 0.36),
        (0.15, 0.85),
    ],
    "drop": _drop(),
}
