"""A slow evaluator of captions' logical forms that reads only JSON records.

It shares no code and no constants with the package: the meaning of every word is written out once
more, thing by thing.
"""

from __future__ import annotations

from itertools import permutations
from math import sqrt
from typing import Any

SIZES = {"small": 1, "medium": 2, "large": 3}


def holds(form: dict[str, Any], scene: dict[str, Any]) -> bool:
    """Whether a logical form (JSON) is true of a scene (JSON)."""
    if "setting" in form and form["setting"] != scene["setting"]:
        return False
    if "light" in form and form["light"] != scene["light"]:
        return False
    for said, count in form.get("tallies", []):
        if sum(fits(thing, said) for thing in scene["things"]) != count:
            return False
    wanted = form.get("things", [])
    return any(
        all(fits(thing, said) for thing, said in zip(witnesses, wanted, strict=True))
        and all(
            related(witnesses[subject], name, witnesses[other])
            for subject, name, other in form.get("relations", [])
        )
        for witnesses in permutations(scene["things"], len(wanted))
    )


def fits(thing: dict[str, Any], said: dict[str, str]) -> bool:
    """Whether a thing is as described."""
    for name, value in said.items():
        if name == "place":
            if not all(at_side(thing["x"], thing["y"], side) for side in value.split()):
                return False
        elif thing[name] != value:
            return False
    return True


def at_side(x: float, y: float, side: str) -> bool:
    """Whether a point of the picture is at a side of it, or in its middle."""
    if side == "left":
        return x < 0.34
    if side == "right":
        return x > 0.66
    if side == "top":
        return y < 0.34
    if side == "bottom":
        return y > 0.66
    assert side == "middle"
    return abs(x - 0.5) <= 0.14 and abs(y - 0.5) <= 0.14


def related(one: dict[str, Any], name: str, other: dict[str, Any]) -> bool:
    """Whether the first thing stands in a relation to the second."""
    across, down = other["x"] - one["x"], other["y"] - one["y"]
    distance = sqrt(across * across + down * down)
    if name == "left":
        return across >= 0.08 and across >= abs(down)
    if name == "right":
        return related(other, "left", one)
    if name == "above":
        return down >= 0.08 and down >= abs(across)
    if name == "below":
        return related(other, "above", one)
    if name == "near":
        return distance <= 0.30
    if name == "far":
        return distance >= 0.62
    if name == "bigger":
        return SIZES[one["size"]] > SIZES[other["size"]]
    if name == "smaller":
        return related(other, "bigger", one)
    assert name.startswith("same ")
    attribute = name.removeprefix("same ")
    return one[attribute] == other[attribute]
