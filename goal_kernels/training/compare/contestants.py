"""Runs that differ by seed only make one contestant; its means, and its test against a baseline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goal_kernels.recipes import flat
from goal_kernels.retrieval.metrics import DIRECTIONS, RECALLS
from goal_kernels.training.compare.runs import Run
from goal_kernels.training.compare.statistics import (
    Comparison,
    compare_values,
    mean_and_deviation,
)

COLUMNS = (*(f"{d} {recall}" for d in DIRECTIONS for recall in RECALLS), "rsum")
OBJECTIVE = "model.objective"
MOST_NAMED = 3  # differing options in a label; runs that differ in more are called by their folders


def column(metrics: Mapping[str, Any], name: str) -> float:
    """The value of one of `COLUMNS`, in percent (rsum: 0 to 600)."""
    if name == "rsum":
        return float(metrics["rsum"])
    direction, recall = name.split(" ")
    return float(metrics[direction][recall])


@dataclass(frozen=True)
class Contestant:
    """Runs of one configuration.

    Attributes:
        label: what tells it from the others.
        runs: finished ones by seed.
    """

    label: str
    runs: Mapping[int, Run]

    def values(self, name: str) -> dict[int, float]:
        """One of `COLUMNS`, by seed."""
        known = {seed: run.metrics for seed, run in self.runs.items() if run.metrics is not None}
        return {seed: column(metrics, name) for seed, metrics in known.items()}

    def summary(self, name: str) -> tuple[float, float | None]:
        """Mean over seeds and sample standard deviation, None for one seed."""
        return mean_and_deviation(list(self.values(name).values()))


def group_runs(runs: Sequence[Run]) -> tuple[list[Contestant], list[str]]:
    """Contestants, best mean rsum first, and remarks on runs that could not count.

    Of two finished runs with one configuration and one seed, the later one counts.
    """
    finished = [run for run in runs if run.finished]
    remarks = []
    labels = _labels(finished)
    groups: dict[str, dict[int, Run]] = {}  # labels are as different as identities
    for run in sorted(finished, key=lambda run: run.environment.get("started", "")):
        group = groups.setdefault(labels[_identity(run)], {})
        if run.seed in group:
            older = group[run.seed]
            remarks.append(f"{older.path}: seed {run.seed} was run again in {run.path}, not used")
        group[run.seed] = run
    contestants = [Contestant(label, dict(sorted(g.items()))) for label, g in groups.items()]
    contestants.sort(key=lambda contestant: -contestant.summary("rsum")[0])
    return contestants, remarks


def find_baseline(contestants: Sequence[Contestant], label: str | None) -> Contestant:
    """The contestant named `label`, or the first, which is the best, when None.

    Raises: ValueError listing the labels when there is none of that name.
    """
    if label is None:
        return contestants[0]
    for contestant in contestants:
        if contestant.label == label:
            return contestant
    known = ", ".join(repr(contestant.label) for contestant in contestants)
    raise ValueError(f"--baseline: expected one of {known}, got {label!r}")


def compare_with(baseline: Contestant, contestants: Sequence[Contestant]) -> dict[str, Comparison]:
    """Paired tests of the rsum of every contestant against the baseline's, by label.

    Not tested are the baseline itself, and who shares no seed with it.
    """
    its = baseline.values("rsum")
    others = [contestant for contestant in contestants if contestant.label != baseline.label]
    return compare_values({other.label: (other.values("rsum"), its) for other in others})


def _identity(run: Run) -> str:
    """Equal for runs of one contestant."""
    return json.dumps([run.label, run.config], sort_keys=True, default=str)


def _labels(runs: Sequence[Run]) -> dict[str, str]:
    """A name for every identity: the objective and the few things that differ, or the run's own."""
    labels = {_identity(run): run.label for run in runs if run.label}
    unnamed = {_identity(run): run for run in runs if not run.label}
    values = {identity: flat(run.config) for identity, run in unnamed.items()}
    names = sorted({name for entries in values.values() for name in entries})
    varying = [
        name
        for name in names
        if name != OBJECTIVE and len({repr(entries.get(name)) for entries in values.values()}) > 1
    ]
    for identity, run in unnamed.items():
        objective = str(values[identity].get(OBJECTIVE, "run"))
        differing = [f"{name}={values[identity].get(name)}" for name in varying]
        if len(varying) > MOST_NAMED:
            differing = [run.path.name]
        labels[identity] = ", ".join([objective, *differing])
    return _told_apart(labels, {_identity(run): run.path.parent.name for run in runs})


def _told_apart(labels: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Labels by identity, those used twice with the place of their runs behind, or a number."""
    count = Counter(labels.values())
    told = {
        identity: label if count[label] == 1 else f"{label} ({places[identity]})"
        for identity, label in labels.items()
    }
    used: Counter[str] = Counter()
    for identity, label in told.items():
        used[label] += 1
        if used[label] > 1:
            told[identity] = f"{label} #{used[label]}"
    return told
