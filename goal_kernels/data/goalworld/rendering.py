"""Drawing scenes as pictures. Needs Pillow; the only part of the data package that does."""

from __future__ import annotations

from collections.abc import Mapping
from math import atan2, cos, hypot, pi, sin

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from goal_kernels.data.goalworld.backdrops import Colour, paint_backdrop
from goal_kernels.data.goalworld.scenes import Scene, Thing

# Drawn this many times larger and scaled down, for smooth edges.
_OVERSAMPLING = 2
_LINE = 0.09
_PERIOD = 0.5
_EDGE: Colour = (40, 40, 45)
_BRIGHT: Colour = (250, 250, 250)
# Paints whose channels sum to less are dark: their pattern is bright.
_DARK_BELOW = 380

_PAINTS: Mapping[str, Colour] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 150, 60),
    "teal": (32, 178, 180),
    "blue": (40, 80, 210),
    "purple": (130, 60, 180),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "grey": (140, 140, 145),
    "black": (25, 25, 30),
    "white": (252, 252, 252),
}
Polygon = list[tuple[float, float]]
_CURVE_POINTS = 48


def render_scene(scene: Scene, pixels: int, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``pixels`` x ``pixels``; ``rng`` only varies details of the backdrop."""
    size = pixels * _OVERSAMPLING
    picture = paint_backdrop(scene.setting, scene.light, size, rng)
    for thing in scene.things:
        _draw_thing(picture, thing)
    return picture.resize((pixels, pixels), Image.Resampling.LANCZOS)


def _draw_thing(picture: Image.Image, thing: Thing) -> None:
    """Draw one thing on a tile of its own and paste that: body, pattern, contour."""
    scale = thing.radius * picture.width
    line = max(2, round(_LINE * scale))
    margin = round(scale) + 3 * line
    corner = (round(thing.x * picture.width) - margin, round(thing.y * picture.height) - margin)
    side = 2 * margin
    tile = picture.crop((*corner, corner[0] + side, corner[1] + side))
    outer = _placed(_OUTLINES[thing.shape], margin, scale)
    inner = _placed(_arc(0.5) if thing.shape == "ring" else [], margin, scale)
    paint = _PAINTS[thing.colour]
    if thing.texture == "hollow":
        # An edge on both sides keeps light colours apart from light backdrops.
        strokes = [(_EDGE, 4 * line), (paint, 3 * line)]
    else:
        strokes = [(_EDGE, line)]
        body = ImageChops.subtract(_mask(side, outer), _mask(side, inner))
        tile.paste(paint, mask=body)
        contrast = _BRIGHT if sum(paint) < _DARK_BELOW else _EDGE
        pattern = _pattern(thing.texture, side, scale)
        tile.paste(contrast, mask=ImageChops.multiply(body, pattern))
    draw = ImageDraw.Draw(tile)
    for contour in filter(None, (outer, inner)):
        for colour, width in strokes:
            draw.line([*contour, *contour[:2]], fill=colour, width=width, joint="curve")
    picture.paste(tile, corner)


def _placed(polygon: Polygon, centre: int, scale: float) -> Polygon:
    """The polygon in pixels around (centre, centre)."""
    return [(centre + scale * x, centre + scale * y) for x, y in polygon]


def _mask(side: int, polygon: Polygon) -> Image.Image:
    """255 inside the polygon, on a square of ``side`` pixels; nowhere without a polygon."""
    mask = Image.new("L", (side, side), 0)
    if polygon:
        ImageDraw.Draw(mask).polygon(polygon, fill=255)
    return mask


def _pattern(texture: str, side: int, scale: float) -> Image.Image:
    """255 where the pattern of a texture shows; its period goes with the thing's size."""
    x = (np.arange(side) - side / 2) / (scale * _PERIOD)
    y = x[:, None]
    if texture == "striped":
        shows = (x + y) % 1.0 < 0.38
    elif texture == "dotted":
        shows = np.hypot(x % 1.0 - 0.5, y % 1.0 - 0.5) < 0.27
    elif texture == "checked":
        shows = (np.floor(2 * x) + np.floor(2 * y)) % 2 == 0
    else:
        shows = np.zeros((side, side), dtype=bool)
    return Image.fromarray(np.where(shows, 255, 0).astype(np.uint8))


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


# Polygons in the square [-1, 1] x [-1, 1], y downwards.
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
