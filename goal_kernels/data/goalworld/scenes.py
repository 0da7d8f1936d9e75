"""Scenes, and families of scenes that assign the same attributes to different things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from math import hypot
from typing import Any

import numpy as np

from goal_kernels.data.goalworld.world import (
    ATTRIBUTES,
    LIGHTS,
    RADIUS,
    SETTINGS,
)

# Objects of a scene share a few colours, shapes and textures, so that naming one attribute seldom
# tells two of them apart and there is something to count.
_PALETTE = {"shape": 3, "colour": 3, "size": 3, "texture": 2}
_CLEARANCE = 0.015
_PLACEMENT_TRIES = 60
# Swapping "place" exchanges both coordinates.
SWAPS = ("shape", "colour", "size", "texture", "place")


@dataclass(frozen=True, order=True)
class Thing:
    """One object: four attribute values of ``world.ATTRIBUTES`` and its centre."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Half the side of its bounding box, as a fraction of the picture."""
        return RADIUS[self.size]


@dataclass(frozen=True)
class Scene:
    """Things before a setting in some light.

    ``swap`` says what this scene exchanged with the first scene of its family, for instance
    ``("colour", 0, 2)``; None for the first scene itself.
    """

    things: tuple[Thing, ...]
    setting: str
    light: str
    swap: tuple[str, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {
            "setting": self.setting,
            "light": self.light,
            "swap": None if self.swap is None else list(self.swap),
            "things": [
                {field.name: getattr(thing, field.name) for field in fields(Thing)}
                for thing in self.things
            ],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scene:
        """The inverse of :meth:`to_json`; other keys of ``record`` are ignored."""
        swap = record["swap"]
        return cls(
            tuple(Thing(**thing) for thing in record["things"]),
            record["setting"],
            record["light"],
            None if swap is None else (swap[0], swap[1], swap[2]),
        )


def draw_family(
    rng: np.random.Generator, siblings: int, objects: tuple[int, int]
) -> tuple[Scene, ...]:
    """A base scene and ``siblings`` others with the same bag of attributes, all different.

    Each sibling swaps one attribute, or the places, between two things of the base scene.

    Args:
        rng: source of randomness; the family is a function of its state.
        siblings: 0 or more.
        objects: fewest and most things in a scene, both included.
    """
    while True:
        base = _draw_scene(rng, int(rng.integers(objects[0], objects[1] + 1)))
        family = [base]
        for sibling in _draw_swaps(rng, base):
            if len(family) > siblings:
                break
            if all(sorted(sibling.things) != sorted(other.things) for other in family):
                family.append(sibling)
        if len(family) > siblings:
            return tuple(family)


def _draw_scene(rng: np.random.Generator, count: int) -> Scene:
    """A scene of ``count`` things that do not overlap."""
    while True:
        shapes, colours, sizes, textures = (_draw_values(rng, name, count) for name in ATTRIBUTES)
        centres = _draw_centres(rng, [RADIUS[size] for size in sizes])
        if centres is not None:
            things = tuple(
                Thing(shape, colour, size, texture, x, y)
                for shape, colour, size, texture, (x, y) in zip(
                    shapes, colours, sizes, textures, centres, strict=True
                )
            )
            setting = SETTINGS[rng.integers(len(SETTINGS))]
            return Scene(things, setting, LIGHTS[rng.integers(len(LIGHTS))])


def _draw_values(rng: np.random.Generator, name: str, count: int) -> list[str]:
    """``count`` values of one attribute out of a small palette."""
    values = ATTRIBUTES[name]
    palette = rng.choice(len(values), size=_PALETTE[name], replace=False)
    return [values[index] for index in rng.choice(palette, size=count)]


def _draw_centres(
    rng: np.random.Generator, radii: Sequence[float]
) -> list[tuple[float, float]] | None:
    """Centres for boxes of these half sides, inside the picture and apart; None when crowded."""
    centres: list[tuple[float, float]] = []
    for radius in radii:
        for x, y in rng.uniform(radius, 1 - radius, size=(_PLACEMENT_TRIES, 2)).round(4).tolist():
            if all(
                hypot(x - other_x, y - other_y) > radius + other_radius + _CLEARANCE
                for (other_x, other_y), other_radius in zip(centres, radii, strict=False)
            ):
                centres.append((x, y))
                break
        else:
            return None
    return centres


def _draw_swaps(rng: np.random.Generator, base: Scene) -> Iterator[Scene]:
    """Every scene one swap away from ``base`` whose things still fit, in random order."""
    pairs = combinations(range(len(base.things)), 2)
    swaps = [(name, first, second) for first, second in pairs for name in SWAPS]
    for index in rng.permutation(len(swaps)):
        name, first, second = swaps[index]
        things = list(base.things)
        names = ("x", "y") if name == "place" else (name,)
        one, other = base.things[first], base.things[second]
        things[first] = replace(one, **{key: getattr(other, key) for key in names})
        things[second] = replace(other, **{key: getattr(one, key) for key in names})
        if things != list(base.things) and _fits(things):
            yield replace(base, things=tuple(things), swap=swaps[index])


def _fits(things: Sequence[Thing]) -> bool:
    """Whether no two things overlap and none sticks out of the picture."""
    inside = all(
        thing.radius <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) for thing in things
    )
    return inside and all(
        hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius
        for one, other in combinations(things, 2)
    )
