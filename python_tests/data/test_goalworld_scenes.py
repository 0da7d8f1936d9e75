"""Families of scenes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from goal_kernels.data.goalworld.scenes import Scene, Thing, draw_family
from goal_kernels.data.goalworld.world import ATTRIBUTES, RADIUS, SETTINGS

FAMILIES = 300
NAMES = ("shape", "colour", "size", "texture")


@pytest.fixture(scope="module")
def families() -> list[tuple[Scene, ...]]:
    rng = np.random.default_rng(2)
    return [draw_family(rng, 2, (3, 6)) for _ in range(FAMILIES)]


def attributes(thing: Thing) -> tuple[str, ...]:
    return tuple(getattr(thing, name) for name in NAMES)


def differing(one: Scene, other: Scene) -> dict[int, set[str]]:
    """For each thing that differs between two scenes, in what."""
    changes = {
        index: {name for name in (*NAMES, "x", "y") if getattr(a, name) != getattr(b, name)}
        for index, (a, b) in enumerate(zip(one.things, other.things, strict=True))
    }
    return {index: names for index, names in changes.items() if names}


def test_siblings_hold_the_same_bag_bound_otherwise(families: list[tuple[Scene, ...]]) -> None:
    for family in families:
        base = family[0]
        assert base.swap is None
        for scene in family:
            assert (scene.setting, scene.light) == (base.setting, base.light)
            for name in (*NAMES, "x", "y"):
                assert Counter(getattr(t, name) for t in scene.things) == Counter(
                    getattr(t, name) for t in base.things
                )
        for one, other in combinations(family, 2):
            assert sorted(one.things) != sorted(other.things)


def test_swap_says_what_was_exchanged(families: list[tuple[Scene, ...]]) -> None:
    seen = Counter()
    for base, *siblings in families:
        for sibling in siblings:
            assert sibling.swap is not None
            name, first, second = sibling.swap
            seen[name] += 1
            changed = differing(base, sibling)
            assert set(changed) == {first, second}
            allowed = {"x", "y"} if name == "place" else {name}
            assert set().union(*changed.values()) <= allowed
    assert set(seen) == {*NAMES, "place"}
    assert min(seen.values()) > FAMILIES / 20


def test_things_are_inside_and_apart(families: list[tuple[Scene, ...]]) -> None:
    for scene in (scene for family in families for scene in family):
        for thing in scene.things:
            radius = RADIUS[thing.size]
            assert min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) >= radius - 1e-9
        for one, other in combinations(scene.things, 2):
            distance = np.hypot(one.x - other.x, one.y - other.y)
            assert distance > RADIUS[one.size] + RADIUS[other.size]


def test_everything_of_the_world_occurs(families: list[tuple[Scene, ...]]) -> None:
    bases = [family[0] for family in families]
    for name, values in ATTRIBUTES.items():
        assert {getattr(thing, name) for scene in bases for thing in scene.things} == set(values)
    assert {scene.setting for scene in bases} == set(SETTINGS)
    assert {len(scene.things) for scene in bases} == {3, 4, 5, 6}


@pytest.mark.parametrize(("siblings", "objects"), [(0, (2, 2)), (4, (2, 3)), (4, (6, 6))])
def test_other_sizes(siblings: int, objects: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        family = draw_family(rng, siblings, objects)
        assert len(family) == 1 + siblings
        assert all(objects[0] <= len(scene.things) <= objects[1] for scene in family)


def test_json_round_trip(families: list[tuple[Scene, ...]]) -> None:
    for scene in families[0]:
        assert Scene.from_json(scene.to_json()) == scene
