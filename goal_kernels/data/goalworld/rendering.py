"""Drawing scenes as pictures. Needs Pillow; the only part of the data package that does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from goal_kernels.data.goalworld.backdrops import Colour, paint_backdrop
from goal_kernels.data.goalworld.scenes import Scene, Thing
from goal_kernels.data.goalworld.shapes import Polygon, hole, outline

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
    outer = _placed(outline(thing.shape), margin, scale)
    inner = _placed(hole(thing.shape) or [], margin, scale)
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
