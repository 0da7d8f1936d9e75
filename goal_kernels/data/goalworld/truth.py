"""Which statements are true of which scenes, for all scenes at once.

Arrays have the things of a scene on the leading axes and the scenes on the last one: asking
whether any thing fits is then a few operations on long vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.goalworld.scenes import Scene
from goal_kernels.data.goalworld.statements import Description, Relation, Statement
from goal_kernels.data.goalworld.world import (
    ATTRIBUTES,
    EDGE,
    FAR,
    GAP,
    LIGHTS,
    MIDDLE,
    NEAR,
    PLACES,
    SETTINGS,
)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_REMEMBERED_BYTES = 64 << 20


@dataclass(frozen=True)
class PackedScenes:
    """Scenes as arrays; N scenes, O = most things in one of them.

    Attributes:
        present: bool [O, N], False where a scene has fewer things.
        values: for each attribute int8 [O, N], indices into ``world.ATTRIBUTES``.
        x, y: float64 [O, N], centres.
        setting, light: int8 [N], indices into ``world.SETTINGS`` and ``world.LIGHTS``.
    """

    present: Bools
    values: dict[str, NDArray[np.int8]]
    x: Floats
    y: Floats
    setting: NDArray[np.int8]
    light: NDArray[np.int8]

    @classmethod
    def pack(cls, scenes: Sequence[Scene]) -> PackedScenes:
        """Pack at least one scene."""
        shape = (max(len(scene.things) for scene in scenes), len(scenes))
        present = np.zeros(shape, dtype=bool)
        values = {name: np.zeros(shape, dtype=np.int8) for name in ATTRIBUTES}
        x, y = np.zeros(shape), np.zeros(shape)
        for column, scene in enumerate(scenes):
            height = len(scene.things)
            present[:height, column] = True
            for name, names in ATTRIBUTES.items():
                codes = [names.index(getattr(thing, name)) for thing in scene.things]
                values[name][:height, column] = codes
            x[:height, column] = [thing.x for thing in scene.things]
            y[:height, column] = [thing.y for thing in scene.things]
        setting = np.array([SETTINGS.index(scene.setting) for scene in scenes], dtype=np.int8)
        light = np.array([LIGHTS.index(scene.light) for scene in scenes], dtype=np.int8)
        return cls(present, values, x, y, setting, light)

    def __len__(self) -> int:
        return len(self.setting)

    @cached_property
    def planes(self) -> dict[tuple[str, str], Bools]:
        """For each (attribute or ``"place"``, value): bool [O, N], whether it applies."""
        planes = {
            (name, value): self.present & (self.values[name] == index)
            for name, values in ATTRIBUTES.items()
            for index, value in enumerate(values)
        }
        sides = {
            "left": self.x < EDGE,
            "right": self.x > 1 - EDGE,
            "top": self.y < EDGE,
            "bottom": self.y > 1 - EDGE,
            "middle": np.maximum(abs(self.x - 0.5), abs(self.y - 0.5)) <= 0.5 - MIDDLE,
        }
        for place, parts in PLACES.items():
            applies = self.present.copy()
            for part in parts:
                applies &= sides[part]
            planes["place", place] = applies
        return planes

    @cached_property
    def relations(self) -> dict[str, Bools]:
        """For each relation: bool [O, O, N], whether it holds from the first thing to the second.

        What it says of things that are not there, or of a thing and itself, has no meaning.
        """
        right, down = (axis[None, :] - axis[:, None] for axis in (self.x, self.y))
        distance = np.hypot(right, down)
        sideways, upright = abs(right) >= abs(down), abs(down) >= abs(right)
        size = self.values["size"]
        same = {
            f"same {name}": self.values[name][None, :] == self.values[name][:, None]
            for name in ("colour", "shape", "texture")
        }
        return {
            "left": (right >= GAP) & sideways,
            "right": (-right >= GAP) & sideways,
            "above": (down >= GAP) & upright,
            "below": (-down >= GAP) & upright,
            "near": distance <= NEAR,
            "far": distance >= FAR,
            "bigger": size[:, None] > size[None, :],
            "smaller": size[:, None] < size[None, :],
            **same,
        }


class Evaluator:
    """Says of which of N scenes a statement is true, for one fixed set of scenes.

    Remembers which things fit the latest descriptions, so that many statements cost little.

    Args:
        scenes: at least one scene.
    """

    def __init__(self, scenes: PackedScenes) -> None:
        self._scenes = scenes
        self._fits: dict[Description, tuple[Bools, Bools]] = {}
        self._apart = ~np.eye(len(scenes.present), dtype=bool)

    def true_rows(self, statement: Statement) -> NDArray[np.int32]:
        """The ascending rows (int32) of the scenes that ``statement`` is true of."""
        # Cheap necessary conditions first; witnesses are sought only in what is left.
        scenes = self._scenes
        alive = np.ones(len(scenes), dtype=bool)
        if statement.setting is not None:
            alive &= scenes.setting == SETTINGS.index(statement.setting)
        if statement.light is not None:
            alive &= scenes.light == LIGHTS.index(statement.light)
        for description in statement.things:
            alive &= self._fit(description)[1]
        for tally in statement.tallies:
            alive &= self._fit(tally.description)[0].sum(axis=0) == tally.count
        rows = alive.nonzero()[0]
        if len(statement.things) > 1 and len(rows):
            rows = self._witnessed(statement, rows)
        return rows.astype(np.int32)

    def _fit(self, description: Description) -> tuple[Bools, Bools]:
        """bool [O, N]: which things fit; bool [N]: whether any does."""
        known = self._fits.get(description)
        if known is None:
            fit = self._scenes.present.copy()
            for name in _DESCRIBED:
                value = getattr(description, name)
                if value is not None:
                    fit &= self._scenes.planes[name, value]
            known = (fit, fit.any(axis=0))
            if len(self._fits) * fit.nbytes > _REMEMBERED_BYTES:
                self._fits.clear()
            self._fits[description] = known
        return known

    def _witnessed(self, statement: Statement, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of ``rows`` where distinct things fit all descriptions in all relations.

        Grows the table of joint assignments [O, ..., O, rows] by one thing at a time and drops
        the scenes that have none left.
        """
        joint = self._fit(statement.things[0])[0][:, rows]
        for new in range(1, len(statement.things)):
            fit = self._fit(statement.things[new])[0][:, rows]
            joint = joint[..., None, :] & fit
            for old in range(new):
                joint &= _spread(self._apart[..., None], (old, new), new + 1)
            for claim in statement.relations:
                if max(claim.subject, claim.object) == new:
                    axes = (min(claim.subject, claim.object), new)
                    joint &= _spread(self._table(claim)[:, :, rows], axes, new + 1)
            alive = joint.any(axis=tuple(range(new + 1)))
            rows, joint = rows[alive], joint[..., alive]
        return rows

    def _table(self, claim: Relation) -> Bools:
        """bool [O, O, N] of a relation, with the thing of the lower number on the first axis."""
        table = self._scenes.relations[claim.name]
        return table if claim.subject < claim.object else table.swapaxes(0, 1)


_DESCRIBED = tuple(field.name for field in fields(Description))


def _spread(table: Bools, axes: tuple[int, int], count: int) -> Bools:
    """Place the two thing axes of [O, O, rows] among ``count`` of them, the others of length 1."""
    shape = [1] * count
    for axis in axes:
        shape[axis] = len(table)
    return table.reshape(*shape, table.shape[-1])
