"""Choosing what a caption says: a true, partial statement about one scene."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from goal_kernels.data.goalworld.lexicon import pick_evenly
from goal_kernels.data.goalworld.scenes import Scene, Thing
from goal_kernels.data.goalworld.statements import Description, Relation, Statement, Tally
from goal_kernels.data.goalworld.truth import Bools, PackedScenes
from goal_kernels.data.goalworld.world import (
    ATTRIBUTES,
    COMPARISONS,
    DIRECTIONS,
    DISTANCES,
    PLACES,
)

# How often an attribute is said when ``detail`` is 0 and 1; in between, in proportion.
_SAID = {
    "shape": (0.75, 0.97),
    "colour": (0.55, 0.95),
    "size": (0.05, 0.45),
    "texture": (0.05, 0.45),
    "place": (0.02, 0.16),
}
_SETTING = (0.10, 0.30)
_LIGHT = (0.04, 0.12)
_EXTRA_THING = (0.10, 0.60)
_TOTAL = 0.06
_EXACT = 0.4
_RELATION_FAMILIES = ((DIRECTIONS, 0.72), (DISTANCES, 0.10), (COMPARISONS, 0.18))
# What a comparison already tells of its two things; saying it once more would be redundant.
_TOLD_BY: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bigger": (("size",), ("size",)),
    "smaller": (("size",), ("size",)),
    "same colour": ((), ("colour",)),
    "same shape": ((), ("shape",)),
    "same texture": ((), ("texture",)),
}
_COUNTED_BY = (
    ("shape",),
    ("colour",),
    ("shape", "colour"),
    ("shape", "texture"),
    ("size", "colour"),
    ("texture",),
)
_DENIED_BY = (("shape", "colour"), ("shape", "texture"), ("size", "shape"), ("colour",))
_DENIAL_TRIES = 12


@dataclass(frozen=True)
class SceneFacts:
    """A scene and what holds in it; O is the number of its things or more.

    Attributes:
        things: the scene's things.
        places: for each thing the places it is at.
        related: for each relation bool [O, O], from the first thing to the second.
        setting, light: the scene's.
    """

    things: tuple[Thing, ...]
    places: tuple[tuple[str, ...], ...]
    related: Mapping[str, Bools]
    setting: str
    light: str


def collect_facts(scenes: Sequence[Scene], packed: PackedScenes) -> list[SceneFacts]:
    """The facts of each scene, read off the same scenes packed."""
    return [
        SceneFacts(
            scene.things,
            tuple(
                tuple(place for place in PLACES if packed.planes["place", place][index, column])
                for index in range(len(scene.things))
            ),
            {name: table[:, :, column] for name, table in packed.relations.items()},
            scene.setting,
            scene.light,
        )
        for column, scene in enumerate(scenes)
    ]


class Describer:
    """Draws true statements about scenes.

    Args:
        detail: 0 to 1, how much a statement says; the more, the fewer scenes it is true of.
    """

    def __init__(self, detail: float) -> None:
        self._said = {name: _between(ends, detail) for name, ends in _SAID.items()}
        self._setting = _between(_SETTING, detail)
        self._light = _between(_LIGHT, detail)
        self._extra = _between(_EXTRA_THING, detail)

    def draw(self, facts: SceneFacts, rng: np.random.Generator) -> Statement:
        """A statement that is true of the scene; the scene has two things or more."""
        kind = _KINDS[bisect_right(_KIND_ENDS, rng.random())][0]
        draft = kind(_Draft(facts, rng, self._said, self._extra))
        return Statement(
            tuple(draft.things),
            tuple(draft.relations),
            tuple(draft.tallies),
            facts.setting if rng.random() < self._setting else None,
            facts.light if rng.random() < self._light else None,
        )


class _Draft:
    """A statement being drawn, and the things of the scene it has not spoken of."""

    def __init__(
        self,
        facts: SceneFacts,
        rng: np.random.Generator,
        said: Mapping[str, float],
        extra: float,
    ) -> None:
        self.facts = facts
        self.rng = rng
        self.unspoken = [int(index) for index in rng.permutation(len(facts.things))]
        self.things: list[Description] = []
        self.relations: list[Relation] = []
        self.tallies: list[Tally] = []
        self._said = said
        self._extra = extra

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def speak_of(self, index: int, told: Collection[str] = ()) -> None:
        """Describe thing ``index`` in part, leaving out the attributes in ``told``."""
        thing, places = self.facts.things[index], self.facts.places[index]
        values = {
            name: getattr(thing, name)
            for name in ATTRIBUTES
            if self.chance(self._said[name]) and name not in told
        }
        if not values.keys() & {"shape", "colour", "texture"}:
            name = "colour" if "shape" in told else "shape"
            values[name] = getattr(thing, name)
        if places and self.chance(self._said["place"]):
            values["place"] = pick_evenly(self.rng, places)
        self.things.append(Description(**values))
        self.unspoken.remove(index)

    def speak_of_another(self) -> None:
        """Perhaps describe one more thing."""
        if self.unspoken and self.chance(self._extra):
            self.speak_of(self.unspoken[0])

    def relation(self, subject: int, other: int) -> str | None:
        """A relation that holds from one thing of the scene to another, if any does."""
        families = [
            ([name for name in names if self.facts.related[name][subject, other]], weight)
            for names, weight in _RELATION_FAMILIES
        ]
        holding = [(names, weight) for names, weight in families if names]
        draw = self.rng.random() * sum(weight for _, weight in holding)
        for names, weight in holding:
            draw -= weight
            if draw < 0:
                return pick_evenly(self.rng, names)
        return None


def _relate(draft: _Draft) -> _Draft:
    """One thing in relation to another."""
    first, second = draft.unspoken[:2]
    name = draft.relation(first, second)
    if name is None:
        return _list(draft)
    told = _TOLD_BY.get(name, ((), ()))
    draft.speak_of(first, told[0])
    draft.speak_of(second, told[1])
    draft.relations.append(Relation(0, name, 1))
    draft.speak_of_another()
    return draft


def _chain(draft: _Draft) -> _Draft:
    """Three things, the first or second of which is related to the third."""
    if len(draft.unspoken) < 3:
        return _relate(draft)
    first, second, third = draft.unspoken[:3]
    via = int(draft.chance(0.5))
    names = (draft.relation(first, second), draft.relation((first, second)[via], third))
    if names[0] is None or names[1] is None or (via == 0 and names[0] == names[1]):
        return _relate(draft)
    told = [_TOLD_BY.get(name, ((), ())) for name in names if name is not None]
    told_first, told_second = set(told[0][0]), set(told[0][1])
    (told_first, told_second)[via].update(told[1][0])
    draft.speak_of(first, told_first)
    draft.speak_of(second, told_second)
    draft.speak_of(third, told[1][1])
    draft.relations += [Relation(0, names[0], 1), Relation(via, names[1], 2)]
    return draft


def _list(draft: _Draft) -> _Draft:
    """Two or three things side by side, now and then with the number of all things."""
    draft.speak_of(draft.unspoken[0])
    draft.speak_of(draft.unspoken[0])
    draft.speak_of_another()
    if draft.chance(_TOTAL):
        draft.tallies.append(Tally(Description(), len(draft.facts.things)))
    return draft


def _count(draft: _Draft) -> _Draft:
    """Several things alike, at least or exactly so many, and others."""
    groups = [
        (said, group)
        for said, group in (_alike(draft, names) for names in _COUNTED_BY)
        if len(group) > 1
    ]
    if not groups:
        return _relate(draft)
    said, group = pick_evenly(draft.rng, groups)
    if draft.chance(_EXACT):
        draft.tallies.append(Tally(said, len(group)))
    else:
        spoken = group[: int(draft.rng.integers(2, len(group) + 1))]
        draft.things += [said] * len(spoken)
    draft.unspoken = [index for index in draft.unspoken if index not in group]
    for _ in range(2):
        draft.speak_of_another()
    return draft


def _alike(draft: _Draft, names: Sequence[str]) -> tuple[Description, list[int]]:
    """What some thing is in these respects, and all the things that are so."""
    things = draft.facts.things
    model = things[pick_evenly(draft.rng, draft.unspoken)]
    said = {name: getattr(model, name) for name in names}
    return Description(**said), [index for index in draft.unspoken if _fits(things[index], said)]


def _deny(draft: _Draft) -> _Draft:
    """One relation or list, and something that is not there although its parts may be."""
    draft = pick_evenly(draft.rng, (_relate, _list))(draft)
    things = draft.facts.things
    for _ in range(_DENIAL_TRIES):
        names = pick_evenly(draft.rng, _DENIED_BY)
        said = {name: getattr(pick_evenly(draft.rng, things), name) for name in names}
        if len(names) == 1:
            said = {name: pick_evenly(draft.rng, ATTRIBUTES[name]) for name in names}
        if not any(_fits(thing, said) for thing in things):
            draft.tallies.append(Tally(Description(**said), 0))
            break
    return draft


def _fits(thing: Thing, said: Mapping[str, str]) -> bool:
    """Whether a thing has all of these attribute values."""
    return all(getattr(thing, name) == value for name, value in said.items())


def _between(ends: tuple[float, float], detail: float) -> float:
    """The point ``detail`` of the way from the first end to the second."""
    return ends[0] + detail * (ends[1] - ends[0])


_KINDS: tuple[tuple[Callable[[_Draft], _Draft], float], ...] = (
    (_relate, 0.38),
    (_chain, 0.16),
    (_list, 0.20),
    (_count, 0.14),
    (_deny, 0.12),
)
_KIND_ENDS = np.cumsum([weight for _, weight in _KINDS])[:-1].tolist()
