"""Region features as an object detector would give them, simulated from the scene.

Each thing is seen through one to three boxes (now and then through none), the whole picture
through one, and the rest are boxes on clutter. The appearance of a box is a fixed random
two-layer map of what is inside, so that attributes are entangled, plus noise; its place is
appended, and negative numbers are cut off as by a ReLU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.goalworld.config import GoalWorldConfig
from goal_kernels.data.goalworld.scenes import Scene, Thing
from goal_kernels.data.goalworld.world import ATTRIBUTES, LIGHTS, SETTINGS

Floats = NDArray[np.float64]

GEOMETRY = 5
_CODE_WIDTH = 16
_BOX_WAVES = (1.0, 2.0)
_HIDDEN = 160
_HIDDEN_GAIN = 1.2
_OUTPUT_GAIN = 1.2
# An attribute looks different on another shape, colour or texture: its code is mixed with one of
# the pair, so that no linear map reads it well, while a small network learns the combinations.
_SEEN_THROUGH = {"shape": "colour", "colour": "texture", "size": "colour", "texture": "shape"}
_PAIR_WEIGHT = 1.1
# How strongly the surroundings show in the box of a thing, and in a box without any thing.
_CONTEXT_IN_THING, _CONTEXT_ALONE = 0.35, 1.0
_CLUTTER_STRENGTH = 0.6
_BOXES_PER_THING = (0.5, 0.3, 0.2)
_CENTRE_JITTER, _SIZE_JITTER = 0.015, 0.10
# The map is the same for every seed, split and image: it stands for one trained detector.
_DETECTOR_SEED = 20_230_103


class Detector:
    """Turns scenes into [K, D] features, with weights fixed by D alone.

    Args:
        config: of which ``regions`` is K and ``dim`` D; ``noise`` and ``miss``.
    """

    def __init__(self, config: GoalWorldConfig) -> None:
        rng = np.random.default_rng([_DETECTOR_SEED, config.dim])
        self._thing_codes = {name: _pair_codes(rng, name) for name in ATTRIBUTES}
        self._setting_codes = rng.standard_normal((len(SETTINGS), _CODE_WIDTH))
        self._light_codes = rng.standard_normal((len(LIGHTS), _CODE_WIDTH))
        inputs = (len(ATTRIBUTES) + 2) * _CODE_WIDTH + GEOMETRY * (1 + 2 * len(_BOX_WAVES))
        appearance = config.dim - GEOMETRY
        self._first = rng.standard_normal((inputs, _HIDDEN)) * _HIDDEN_GAIN / np.sqrt(inputs)
        self._first_bias = rng.standard_normal(_HIDDEN) * 0.5
        self._second = rng.standard_normal((_HIDDEN, appearance)) * _OUTPUT_GAIN / np.sqrt(_HIDDEN)
        self._second_bias = rng.standard_normal(appearance) * 0.2
        self._config = config

    def detect(self, scene: Scene, rng: np.random.Generator) -> Floats:
        """Features float64 [K, D] of one scene, boxes in random order, all numbers in [0, 2)."""
        config = self._config
        things = self._seen_things(scene, rng)
        boxes = np.empty((config.regions, GEOMETRY))
        content = np.empty((config.regions, len(ATTRIBUTES) * _CODE_WIDTH))
        context = np.full(config.regions, _CONTEXT_ALONE)
        for row, thing in enumerate(things):
            content[row] = self._content(thing)
        seen = len(things)
        context[:seen] = _CONTEXT_IN_THING
        boxes[:seen] = _jittered_boxes(things, rng)
        boxes[seen] = (0.0, 0.0, 1.0, 1.0, 1.0)
        content[seen] = 0.0
        clutter = config.regions - seen - 1
        boxes[seen + 1 :] = _random_boxes(clutter, rng)
        content[seen + 1 :] = _CLUTTER_STRENGTH * rng.standard_normal((clutter, content.shape[1]))
        appearance = self._appearance(content, context[:, None] * self._context(scene), boxes)
        appearance += config.noise * rng.standard_normal(appearance.shape)
        features = np.concatenate([appearance, boxes], axis=1)
        return np.maximum(features[rng.permutation(config.regions)], 0.0)

    def _seen_things(self, scene: Scene, rng: np.random.Generator) -> list[Thing]:
        """Each detected thing as often as it has boxes; leaves room for the whole picture."""
        counts = rng.choice(len(_BOXES_PER_THING), size=len(scene.things), p=_BOXES_PER_THING) + 1
        counts[rng.random(len(counts)) < self._config.miss] = 0
        while counts.sum() > self._config.regions - 1:
            counts[counts.argmax()] -= 1
        return [
            thing
            for thing, count in zip(scene.things, counts.tolist(), strict=True)
            for _ in range(count)
        ]

    def _content(self, thing: Thing) -> Floats:
        """The codes [4·width] of a thing's attributes."""
        index = {name: names.index(getattr(thing, name)) for name, names in ATTRIBUTES.items()}
        return np.concatenate(
            [
                codes[index[name], index[_SEEN_THROUGH[name]]]
                for name, codes in self._thing_codes.items()
            ]
        )

    def _context(self, scene: Scene) -> Floats:
        """The codes [2·width] of the scene's setting and light."""
        setting = self._setting_codes[SETTINGS.index(scene.setting)]
        return np.concatenate([setting, self._light_codes[LIGHTS.index(scene.light)]])

    def _appearance(self, content: Floats, context: Floats, boxes: Floats) -> Floats:
        """The two-layer map: [K, content], [K, context], [K, 5] to [K, D - 5] in (-1, 1)."""
        waves = [wave(np.pi * scale * boxes) for scale in _BOX_WAVES for wave in (np.sin, np.cos)]
        inputs = np.concatenate([content, context, boxes, *waves], axis=1)
        hidden = np.tanh(inputs @ self._first + self._first_bias)
        return np.tanh(hidden @ self._second + self._second_bias)


def _pair_codes(rng: np.random.Generator, name: str) -> Floats:
    """Codes [values, values of the attribute it is seen through, width] of unit variance."""
    shape = (len(ATTRIBUTES[name]), len(ATTRIBUTES[_SEEN_THROUGH[name]]), _CODE_WIDTH)
    alone = rng.standard_normal((shape[0], 1, _CODE_WIDTH))
    return (alone + _PAIR_WEIGHT * rng.standard_normal(shape)) / np.hypot(1, _PAIR_WEIGHT)


def _jittered_boxes(things: list[Thing], rng: np.random.Generator) -> Floats:
    """Boxes [n, 5] around the things, each a little off."""
    centres = np.array([(thing.x, thing.y) for thing in things]).reshape(-1, 2)
    radii = np.array([thing.radius for thing in things])[:, None]
    centres = centres + _CENTRE_JITTER * rng.standard_normal(centres.shape)
    halves = radii * (1 + _SIZE_JITTER * rng.uniform(-1, 1, size=centres.shape))
    return _with_area(np.concatenate([centres - halves, centres + halves], axis=1))


def _random_boxes(count: int, rng: np.random.Generator) -> Floats:
    """Boxes [count, 5] anywhere, of any size."""
    corners = np.sort(rng.random((count, 2, 2)), axis=1)
    return _with_area(corners.reshape(count, 4))


def _with_area(corners: Floats) -> Floats:
    """Cut boxes x1, y1, x2, y2 [n, 4] to the picture and append their areas: [n, 5]."""
    corners = corners.clip(0.0, 1.0)
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return np.concatenate([corners, area[:, None]], axis=1)
