"""What exists in GoalWorld: the values of every attribute, and when a spatial word applies.

Coordinates are fractions of the picture: x grows to the right, y grows downwards, both in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

SHAPES = (
    *("disc", "square", "triangle", "star", "ring", "cross"),
    *("diamond", "hexagon", "heart", "crescent", "arrow", "drop"),
)
COLOURS = (
    *("red", "orange", "yellow", "green", "teal", "blue"),
    *("purple", "pink", "brown", "grey", "black", "white"),
)
SIZES = ("small", "medium", "large")
TEXTURES = ("plain", "striped", "dotted", "checked", "hollow")
SETTINGS = (
    *("beach", "meadow", "snow", "sea", "desert"),
    *("wall", "table", "paper", "sky", "street"),
)
LIGHTS = ("dawn", "noon", "dusk", "night")

# Attributes of one thing, in the order in which adjectives and feature blocks take them.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "texture": TEXTURES,
}

# Half the side of a thing's bounding box.
RADIUS: Mapping[str, float] = {"small": 0.055, "medium": 0.085, "large": 0.125}

# A thing is at the left when x < EDGE, at the right when x > 1 - EDGE, and so on; it is in the
# middle when both coordinates are at least MIDDLE away from the borders.
EDGE = 0.34
MIDDLE = 0.36
PLACES: Mapping[str, tuple[str, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "top": ("top",),
    "bottom": ("bottom",),
    "middle": ("middle",),
    "top left": ("top", "left"),
    "top right": ("top", "right"),
    "bottom left": ("bottom", "left"),
    "bottom right": ("bottom", "right"),
}

# One thing is left of another when it is so by at least GAP and by no less than it is above or
# below it; likewise for the other three. NEAR and FAR bound the distance between centres.
GAP = 0.08
NEAR = 0.30
FAR = 0.62
DIRECTIONS = ("left", "right", "above", "below")
DISTANCES = ("near", "far")
COMPARISONS = ("bigger", "smaller", "same colour", "same shape", "same texture")
