"""The results of a study, collected for its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from goal_kernels import list_elements
from goal_kernels.data.files import read_json
from goal_kernels.training.compare.contestants import Contestant, find_baseline, group_runs
from goal_kernels.training.compare.runs import run_of_cell
from goal_kernels.training.study.recipe import Cell, StudyRecipe
from goal_kernels.training.study.results import CellResult, is_finished, read_result, result_path
from goal_kernels.training.study.tuning import Parameters

Trials = Mapping[str, Sequence[float]]
"""Mean rsum on dev of an objective's trials, in the order of `Tuning.of`."""


@dataclass(frozen=True)
class Gathered:
    """The finished cells of a study.

    Attributes:
        recipe: of the study.
        cells: all it has, finished or not.
        results: of the finished ones, in the order of `cells`.
        trials: of a tuned study, as `read_trials` gives them; its cells are those of `finals`.
        evaluations: records of `eval RUN --rerank K --json FILE` in `evaluations/` beside
            the results, of models that re-rank.
    """

    recipe: StudyRecipe
    cells: Sequence[Cell]
    results: Sequence[CellResult]
    trials: Trials = field(default_factory=dict)
    evaluations: Sequence[dict[str, Any]] = ()

    @property
    def chosen(self) -> dict[str, Parameters]:
        """By objective, of a tuned study."""
        return choose(self.recipe, self.trials)

    @property
    def main(self) -> list[Contestant]:
        """Contestants of the groups that run on all seeds of the study, best first."""
        names = [group.name for group in self.recipe.groups if not group.seeds]
        return self.of_groups(names)

    @property
    def others(self) -> dict[str, list[Contestant]]:
        """Contestants of each group with seeds of its own, by the group's name.

        They come in the order of their partners in `main`, then those without a partner. None of a
        tuned study, whose settings are shown with what was chosen.
        """
        rank = {contestant.label: place for place, contestant in enumerate(self.main)}
        found = {}
        for group in self.recipe.groups:
            own = group.seeds and self.recipe.tuning is None
            contestants = self.of_groups([group.name]) if own else []
            if contestants:
                places = [
                    rank.get(plain_label(c.label, group.name), len(rank)) for c in contestants
                ]
                order = sorted(range(len(places)), key=places.__getitem__)
                found[group.name] = [contestants[place] for place in order]
        return found

    @property
    def baseline(self) -> Contestant:
        """What the page tests against: the recipe's, or the best while that has no results."""
        known = {contestant.label for contestant in self.main}
        wanted = self.recipe.baseline
        return find_baseline(self.main, wanted if wanted in known else None)

    def of_groups(self, groups: Sequence[str]) -> list[Contestant]:
        """Contestants of the groups of these names, best first."""
        results = [result for result in self.results if result.header["group"] in groups]
        return group_runs([run_of_cell(result) for result in results])[0]


def plain_label(label: str, group: str) -> str:
    """The objective of a contestant whose label ends with its group."""
    return label.removesuffix(f", {group}")


def read_trials(
    recipe: StudyRecipe, results: Path, overrides: Mapping[str, Any] | None = None
) -> Trials:
    """The trials of the objectives that have run all of theirs.

    Raises: ValueError when a result is damaged or from another configuration.
    """
    assert recipe.tuning is not None
    rsums: dict[str, list[float]] = {}  # trial by trial, and in each seed by seed
    for cell in recipe.trial_cells(overrides):
        rsum = math.nan
        if is_finished(results, cell):
            rsum = read_result(result_path(results, cell)).result["metrics"]["rsum"]
        rsums.setdefault(cell.config["model"]["objective"], []).append(rsum)
    size = len(recipe.tuning.seeds)
    return {
        objective: [fmean(values[i : i + size]) for i in range(0, len(values), size)]
        for objective, values in rsums.items()
        if not any(map(math.isnan, values))
    }


def choose(recipe: StudyRecipe, trials: Trials) -> dict[str, Parameters]:
    """The hyper-parameters of each objective's best trial on dev, the first one of equals."""
    assert recipe.tuning is not None
    return {name: recipe.tuning.of(name)[of.index(max(of))] for name, of in trials.items()}


def gather(
    recipe: StudyRecipe, cells: Sequence[Cell], results: Path, trials: Trials | None = None
) -> Gathered:
    """Read the finished cells of a study, whose trials are given where it is a tuned one.

    Raises: ValueError when there is none, or one is damaged or from another configuration.
    """
    finished = [cell for cell in cells if is_finished(results, cell)]
    if not finished:
        raise ValueError(
            f"{results}: expected results of finished cells, got none; run the study first"
        )
    read = [read_result(result_path(results, cell)) for cell in finished]
    evaluations = [read_json(path) for path in sorted(results.parent.glob("evaluations/*.json"))]
    return Gathered(recipe, cells, read, trials or {}, evaluations)


@dataclass(frozen=True)
class Grid:
    """Mean rsums of "triplet/pair" objectives.

    Attributes:
        triplets, pairs: weights, in order of appearance in the registry.
        values: rsum of each seed by (triplet, pair); `MARGINAL` stands for "all of them": the mean
            over that axis, taken within each seed.
    """

    triplets: Sequence[str]
    pairs: Sequence[str]
    values: Mapping[tuple[str, str], Mapping[int, float]]


MARGINAL = "mean"


def grid_of(contestants: Sequence[Contestant]) -> Grid | None:
    """The grid of the contestants that are objectives; None unless it is full and has two axes.

    Seeds that some objective lacks are left out; None as well when there is no other.
    """
    rsums = {
        contestant.label: contestant.values("rsum")
        for contestant in contestants
        if "/" in contestant.label
    }
    triplets = sorted({label.partition("/")[0] for label in rsums}, key=registry_order("triplet"))
    pairs = sorted({label.partition("/")[2] for label in rsums}, key=registry_order("pair"))
    if len(triplets) < 2 or len(pairs) < 2 or len(triplets) * len(pairs) != len(rsums):
        return None
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in rsums.values())))
    if not shared:
        return None
    values = {}
    for t in (*triplets, MARGINAL):
        for p in (*pairs, MARGINAL):
            rows = [t] if t != MARGINAL else triplets
            columns = [p] if p != MARGINAL else pairs
            chosen = [rsums[f"{row}/{column}"] for row in rows for column in columns]
            values[t, p] = {seed: sum(c[seed] for c in chosen) / len(chosen) for seed in shared}
    return Grid(triplets, pairs, values)


def registry_order(kind: str) -> Callable[[str], int]:
    """Sorts names of "triplet" or "pair" weights as the registry lists them, unknown ones last."""
    order = [element.name for element in list_elements(kind)]
    return lambda name: order.index(name) if name in order else len(order)
