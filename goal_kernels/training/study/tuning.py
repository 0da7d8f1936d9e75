"""Trials of hyper-parameters: settings that are given, and values drawn from stated ranges."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from goal_kernels import Objective
from goal_kernels.registry import PARAMETERS

SCALES = ("linear", "log")
DIGITS = 3  # significant ones of a value that is drawn, so that a page can show all of it
Parameters = Mapping[str, float]
"""Hyper-parameters of an objective by name; defaults for the others."""


class Range(NamedTuple):
    """Values of a hyper-parameter from `low` to `high`, uniform on a "linear" or "log" scale."""

    low: float
    high: float
    scale: str

    def at(self, quantile: float) -> float:
        """The value below which a share `quantile` of the range lies."""
        low, high, scale = self
        value = low * (high / low) ** quantile if scale == "log" else low + (high - low) * quantile
        return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Tuning:
    """How the hyper-parameters of objectives are chosen.

    Attributes:
        trials: of each objective; one for an objective that has no hyper-parameters.
        seeds: of the runs of a trial, other ones than the study's.
        ranges: of the hyper-parameters that are tuned.
        settings: values by name of the setting. They are the first trials of the objectives that
            have all of the hyper-parameters, and run beside the chosen values in the end.
        seed: of the drawing.
    """

    trials: int
    seeds: tuple[int, ...]
    ranges: Mapping[str, Range]
    settings: Mapping[str, Parameters]
    seed: int = 0

    def names(self, objective: str) -> list[str]:
        """Hyper-parameters of "triplet/pair" that are tuned."""
        parsed = Objective.parse(objective)
        elements = (parsed.triplet_element, parsed.pair_element)
        return [name for e in elements for name in e.hyper_parameters if name in self.ranges]

    def given(self, objective: str) -> dict[str, Parameters]:
        """The settings of an objective."""
        known = self.names(objective)
        return {name: s for name, s in self.settings.items() if set(s) <= set(known)}

    def of(self, objective: str) -> list[Parameters]:
        """The trials of an objective: its settings, then a Latin hypercube.

        Each range is cut into as many equal parts as values are drawn, and the middle of each part
        is taken once, in an order that depends on `seed`, the name and the number of values.
        """
        names, given = self.names(objective), list(self.given(objective).values())
        drawn = self.trials - len(given) if names else 0
        places = {
            name: random.Random(f"{self.seed} {name} {drawn}").sample(range(drawn), drawn)
            for name in names
        }
        return given + [
            {name: self.ranges[name].at((order[k] + 0.5) / drawn) for name, order in places.items()}
            for k in range(drawn)
        ]


def read_tuning(given: Mapping[str, Any], seeds: tuple[int, ...]) -> Tuning:
    """The `tuning` entry of a study, whose own `seeds` are read already.

    Raises: ValueError naming the entry that is wrong.
    """
    known = (*Tuning.__annotations__,)
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"tuning.{unknown[0]}: expected one of {', '.join(known)}; check the name")
    if shared := set(given["seeds"]) & set(seeds):
        raise ValueError(
            f"tuning.seeds: expected none of the study's, got {sorted(shared)} in both; a choice "
            "must not be tested by its own runs"
        )
    settings, ranges = given.get("settings", {"defaults": {}}), given.get("ranges", {})
    for name, entry in {"settings": settings, "ranges": ranges}.items():
        if not isinstance(entry, Mapping) or not entry:
            raise ValueError(f"tuning.{name}: expected names with values, got {entry!r:.60}")
    for name, entry in settings.items():
        if not isinstance(entry, Mapping) or not set(entry) <= set(ranges):
            values = f"values of some of {', '.join(ranges)}"
            raise ValueError(f"tuning.settings.{name}: expected {values}, got {entry!r:.60}")
    trials, least = given.get("trials"), len(settings) + 1
    if type(trials) is not int or trials < least:
        raise ValueError(
            f"tuning.trials: expected a whole number from {least} on, one more than there are "
            f"settings, got {trials!r}"
        )
    read = {name: _range(name, entry) for name, entry in ranges.items()}
    return Tuning(trials, given["seeds"], read, settings, given.get("seed", 0))


def _range(name: str, given: Any) -> Range:
    """The range of `name` that `[low, high, scale]` describes."""
    if name not in PARAMETERS:
        raise ValueError(f"tuning.ranges.{name}: expected one of {', '.join(PARAMETERS)}")
    try:
        low, high, scale = given
        if scale in SCALES and low < high and (low > 0 or scale != "log"):
            return Range(low, high, scale)
    except (TypeError, ValueError):
        pass  # said below
    raise ValueError(
        f"tuning.ranges.{name}: expected [low, high, scale] with low < high and one of "
        f"{', '.join(SCALES)} (of values above 0), got {given!r:.60}"
    )
