"""Logical forms: what a caption claims, apart from the words it uses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Description:
    """What is said of one thing; None where nothing is said.

    A thing fits when each given attribute is its own and it is at the given place.
    """

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    place: str | None = None

    def to_json(self) -> dict[str, str]:
        """Only what is said."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class Relation:
    """Thing number ``subject`` of a statement stands in relation ``name`` to number ``object``."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True)
class Tally:
    """Exactly ``count`` things of the scene fit ``description``; count 0 is a negation."""

    description: Description
    count: int


@dataclass(frozen=True)
class Statement:
    """A conjunction of claims about one scene.

    It is true of a scene when the scene has the given setting and light (where given), every
    tally holds, and different things of the scene can be found for the descriptions of
    ``things``, one each, that fit them and stand in all the relations. So "two red discs" is the
    same description twice, and "a red disc left of a disc" needs two discs.
    """

    things: tuple[Description, ...] = ()
    relations: tuple[Relation, ...] = ()
    tallies: tuple[Tally, ...] = ()
    setting: str | None = None
    light: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers; parts about which nothing is said are left out."""
        parts = {
            "things": [thing.to_json() for thing in self.things],
            "relations": [[claim.subject, claim.name, claim.object] for claim in self.relations],
            "tallies": [[tally.description.to_json(), tally.count] for tally in self.tallies],
            "setting": self.setting,
            "light": self.light,
        }
        return {name: value for name, value in parts.items() if value}
