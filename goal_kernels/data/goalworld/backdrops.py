"""Painting the settings of GoalWorld behind the things. Needs Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

# Multiplied onto the backdrop: upper end and lower end of the picture.
_LIGHT_TINTS: Mapping[str, tuple[Colour, Colour]] = {
    "dawn": ((255, 200, 208), (255, 226, 216)),
    "noon": ((255, 255, 255), (255, 255, 250)),
    "dusk": ((246, 190, 150), (232, 198, 190)),
    "night": ((96, 104, 150), (118, 122, 160)),
}


class _Canvas(NamedTuple):
    """Where a backdrop is painted: side in pixels, and a source of randomness."""

    draw: ImageDraw.ImageDraw
    pixels: int
    rng: np.random.Generator


def paint_backdrop(setting: str, light: str, pixels: int, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``pixels`` x ``pixels`` of an empty setting in some light."""
    ground, paint = _PAINTERS[setting]
    picture = Image.new("RGB", (pixels, pixels), ground)
    paint(_Canvas(ImageDraw.Draw(picture), pixels, rng))
    top, bottom = (np.array(colour, dtype=float) for colour in _LIGHT_TINTS[light])
    share = np.linspace(0, 1, pixels)[:, None, None]
    tinted = np.asarray(picture, dtype=float) * (top + share * (bottom - top)) / 255
    return Image.fromarray(tinted.round().astype(np.uint8))


def _speckle(canvas: _Canvas, colour: Colour, count: int, size: float) -> None:
    """Small dots anywhere."""
    draw, pixels, rng = canvas
    radius = max(1.0, size * pixels)
    for x, y in (rng.random((count, 2)) * pixels).tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _blades(canvas: _Canvas, colour: Colour) -> None:
    """Short upright strokes of grass."""
    draw, pixels, rng = canvas
    for x, y in (rng.random((160, 2)) * pixels).tolist():
        draw.line((x, y, x + 0.008 * pixels, y - 0.035 * pixels), fill=colour, width=2)


def _waves(canvas: _Canvas, colour: Colour, rows: int, height: float) -> None:
    """Wavy lines across the picture: water, dunes."""
    draw, pixels, rng = canvas
    x = np.linspace(0, pixels, 60)
    for row in range(rows):
        middle = (row + 0.5) * pixels / rows
        bend = np.sin(x / pixels * 2 * np.pi * rows / 2.5 + rng.uniform(0, 2 * np.pi))
        y = middle + height * pixels * bend
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=3)


def _bricks(canvas: _Canvas, colour: Colour) -> None:
    """Courses of bricks, each shifted by half a brick."""
    draw, pixels, rng = canvas
    height, width = pixels / 10, pixels / 5
    shift = rng.random() * width
    for row in range(11):
        y = row * height
        draw.line((0, y, pixels, y), fill=colour, width=3)
        for column in range(-1, 7):
            x = (column + 0.5 * (row % 2)) * width + shift
            draw.line((x, y, x, y + height), fill=colour, width=3)


def _planks(canvas: _Canvas, colour: Colour) -> None:
    """Long boards with a few grain lines."""
    draw, pixels, rng = canvas
    for row in range(1, 6):
        draw.line((0, row * pixels / 6, pixels, row * pixels / 6), fill=colour, width=4)
    for x, y in (rng.random((24, 2)) * pixels).tolist():
        draw.line((x, y, x + 0.18 * pixels, y), fill=colour, width=1)


def _ruled(canvas: _Canvas, colour: Colour) -> None:
    """Lines of a notebook page, evenly spaced."""
    draw, pixels, rng = canvas
    first = rng.uniform(0.02, 0.08)
    for y in (np.arange(first, 1, 0.08) * pixels).tolist():
        draw.line((0, y, pixels, y), fill=colour, width=2)


def _clouds(canvas: _Canvas, colour: Colour) -> None:
    """Puffs of a few overlapping ellipses."""
    draw, pixels, rng = canvas
    for x, y in (rng.random((6, 2)) * pixels).tolist():
        for dx, dy in (rng.uniform(-0.07, 0.07, size=(4, 2)) * pixels).tolist():
            left, top = x + dx - 0.08 * pixels, y + 0.4 * dy - 0.04 * pixels
            draw.ellipse((left, top, left + 0.16 * pixels, top + 0.08 * pixels), fill=colour)


def _road(canvas: _Canvas, colour: Colour) -> None:
    """Dashed lanes."""
    draw, pixels, rng = canvas
    shift = rng.random() * 0.2
    for y in (0.25, 0.5, 0.75):
        for start in np.arange(-0.2 + shift, 1, 0.2).tolist():
            box = (start, y - 0.008, start + 0.1, y + 0.008)
            draw.rectangle([side * pixels for side in box], fill=colour)


_PAINTERS: Mapping[str, tuple[Colour, Callable[[_Canvas], None]]] = {
    "beach": ((238, 220, 178), partial(_speckle, colour=(214, 192, 146), count=260, size=0.004)),
    "meadow": ((176, 208, 150), partial(_blades, colour=(140, 180, 116))),
    "snow": ((240, 245, 250), partial(_speckle, colour=(205, 218, 232), count=90, size=0.010)),
    "sea": ((160, 200, 216), partial(_waves, colour=(128, 174, 196), rows=12, height=0.012)),
    "desert": ((228, 192, 142), partial(_waves, colour=(206, 166, 116), rows=5, height=0.04)),
    "wall": ((202, 160, 146), partial(_bricks, colour=(178, 134, 120))),
    "table": ((206, 176, 138), partial(_planks, colour=(178, 146, 108))),
    "paper": ((248, 246, 238), partial(_ruled, colour=(190, 206, 226))),
    "sky": ((186, 214, 238), partial(_clouds, colour=(226, 238, 248))),
    "street": ((176, 176, 180), partial(_road, colour=(214, 214, 206))),
}
