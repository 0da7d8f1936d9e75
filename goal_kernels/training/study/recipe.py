"""A study as written in YAML: a base recipe, what it changes, and the grid of cells."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import goal_kernels as gk
from goal_kernels.recipes import STUDIES, find_recipe, merged, overlaid, read_config
from goal_kernels.training.study.tuning import Parameters, Tuning, read_tuning

SECTIONS = ("data", "model", "trainer", "run")  # of a configuration that a study may change
SELECTION = ("negatives", "false_negative_margin", "false_negative_ratio")
"""Options of the model that only the objective follows, unless a collapse is watched for."""
ALL = "all"
KINDS = (
    ("groups", list, "a list of groups"),
    ("set", dict, "names with values"),
    ("dataset", dict, "names with values"),
    ("parameters", dict, "names with values"),
    ("tuning", dict, "names with values"),
    ("title", str, "a text"),
    ("baseline", str, "a text"),
)
"""Entries of a study or a group that have another type than its name."""


@dataclass(frozen=True)
class Group:
    """Cells that differ by objective and seed only.

    Attributes:
        name: of the group; of its one contestant when it names no objectives.
        objectives: "triplet/pair" names; empty for a contestant whose objective never counts.
        seeds: of everything random in a run; those of the study when empty.
        set: what the group changes in the configuration.
        parameters: hyper-parameters by objective, beside those that `set` may give to all.
    """

    name: str
    objectives: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Parameters] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRecipe:
    """A study.

    Attributes:
        name: of the study and of its folder.
        title: heading of its page.
        base: recipe that every cell starts from, a packaged name or a file.
        seeds: at least one.
        groups: at least one.
        set: what all cells change in the base.
        baseline: label of the contestant that the page tests the others against; the best if "".
        dataset: arguments of `generate_goalworld` for the data folder; empty when it is there.
        tuning: how the hyper-parameters of the objectives of the one group are chosen first.
    """

    name: str
    base: str
    seeds: tuple[int, ...]
    groups: tuple[Group, ...]
    title: str = ""
    baseline: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None

    def cells(self, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
        """Every run of the study, seed by seed within a group.

        Args:
            overrides: last changes to every configuration, e.g. {"data": {"folder": "my/folder"}}.
        """
        given = merged(find_recipe(self.base))
        # The seed is the cell's own, and what names the run of `fit` means nothing here.
        base: dict[str, Any] = {name: given.get(name) or {} for name in SECTIONS}
        base["run"] = {"threads": base["run"].get("threads")}
        cells = []
        for number, group in enumerate(self.groups):
            config = base
            for changes in (self.set, group.set, overrides or {}):
                config = overlaid(config, changes)
            for seed in group.seeds or self.seeds:
                for objective in group.objectives or (None,):
                    cells.append(_cell(group, number == 0, objective, seed, config))
        return cells

    def trial_cells(self, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
        """The runs of all trials, tested on the dev split; none without `tuning`."""
        if self.tuning is None:
            return []
        group = self.groups[0]
        drawn = {objective: self.tuning.of(objective) for objective in group.objectives}
        cells = []
        for number in range(self.tuning.trials):
            given = {o: trials[number] for o, trials in drawn.items() if number < len(trials)}
            seeds, name = self.tuning.seeds, f"trial {number}"
            trial = replace(group, name=name, objectives=(*given,), seeds=seeds, parameters=given)
            for cell in replace(self, groups=(trial,)).cells(overrides) if given else ():
                dev = {"test_split": cell.config["data"].get("dev_split", "dev")}
                config = overlaid(cell.config, {"data": dev})
                cells.append(replace(cell, label=f"{cell.label}, {name}", config=config))
        return cells

    def finals(self, chosen: Mapping[str, Parameters]) -> StudyRecipe:
        """The study with chosen hyper-parameters by objective, and a group for each setting.

        An objective whose setting was chosen has no second run of it.
        """
        assert self.tuning is not None
        tuned = replace(self.groups[0], objectives=(*chosen,), parameters=chosen)
        groups = [tuned]
        for name, setting in self.tuning.settings.items():
            others = [o for o in chosen if name in self.tuning.given(o) and chosen[o] != setting]
            given, seeds = dict.fromkeys(others, setting), self.seeds
            if others:
                groups.append(
                    replace(tuned, name=name, objectives=(*given,), seeds=seeds, parameters=given)
                )
        return replace(self, groups=(*groups,))


def _cell(group: Group, first: bool, objective: str | None, seed: int, config: dict) -> Cell:
    """One cell of a group; the first group's cells are named by the objective alone."""
    if objective is None:
        return Cell(group.name, group.name, seed, config)
    label = objective if first else f"{objective}, {group.name}"
    model: dict[str, Any] = {"objective": objective}
    if given := group.parameters.get(objective):
        model["objective_parameters"] = given
    return Cell(group.name, label, seed, overlaid(config, {"model": model}))


def read_study(name: str) -> StudyRecipe:
    """Read a study, given as a file or as the name of a packaged one.

    Raises: FileNotFoundError when it is neither; ValueError naming the entry that is wrong.
    """
    given = read_config(find_recipe(name, folder=STUDIES), "study")
    _check_names(given, StudyRecipe, "")
    groups = tuple(_group(entry, number) for number, entry in enumerate(given.get("groups", [])))
    seeds, tuning = _seeds(given, "seeds"), given.get("tuning")
    if tuning is not None:
        tuning = read_tuning({**tuning, "seeds": _seeds(tuning, "tuning.seeds")}, seeds)
    recipe = StudyRecipe(**{**given, "groups": groups, "seeds": seeds, "tuning": tuning})
    _check_complete(recipe)
    return recipe


def _group(given: Any, number: int) -> Group:
    """The group that entry `number` of `groups` describes."""
    where = f"groups[{number}]."
    _check_names(given, Group, where)
    objectives = given.get("objectives", [])
    if objectives == ALL:
        objectives = all_objectives()
    elif not isinstance(objectives, list) or not all(isinstance(name, str) for name in objectives):
        raise ValueError(
            f"{where}objectives: expected a list of names or {ALL!r}, got {objectives!r:.60}"
        )
    seeds = _seeds(given, where + "seeds") if "seeds" in given else ()
    return Group(**{**given, "objectives": tuple(objectives), "seeds": seeds})


def all_objectives() -> tuple[str, ...]:
    """Every built-in triplet weight with every built-in pair weight, as "triplet/pair"."""
    built_in = {
        kind: [element.name for element in gk.list_elements(kind) if element.built_in]
        for kind in ("triplet", "pair")
    }
    return tuple(f"{t}/{p}" for t in built_in["triplet"] for p in built_in["pair"])


def _seeds(given: Mapping[str, Any], where: str) -> tuple[int, ...]:
    seeds = given.get("seeds")
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{where}: expected a list of different whole numbers >= 0, got {seeds!r}; "
            "for instance [0, 1, 2, 3, 4]"
        )
    return tuple(seeds)


def _check_names(given: Any, record: type, where: str) -> None:
    """Raise ValueError unless `given` is a mapping whose names are fields of `record`."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{where.rstrip('.') or 'study'}: expected names with values, got {given!r}"
        )
    known = [entry.name for entry in fields(record)]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}{name}: expected one of {', '.join(known)}; check the name")
    for name in ("name", "base") if record is StudyRecipe else ("name",):
        if not isinstance(given.get(name), str):
            raise ValueError(f"{where}{name}: expected a text, got {given.get(name)!r}; add it")
    for name, kind, words in KINDS:
        if not isinstance(given.get(name, kind()), kind):
            raise ValueError(f"{where}{name}: expected {words}, got {given[name]!r:.60}")


def _check_complete(recipe: StudyRecipe) -> None:
    """Raise ValueError when nothing would run or two cells would share a name."""
    if not recipe.groups:
        raise ValueError("groups: expected at least one group of cells, got none; add one")
    if recipe.tuning is not None and (len(recipe.groups) > 1 or not recipe.groups[0].objectives):
        raise ValueError(
            f"groups: expected one group with objectives, which are tuned, got "
            f"{[group.name for group in recipe.groups]}; the settings of `tuning` are its others"
        )
    for where, changes in [
        ("set", recipe.set),
        *((f"groups[{i}].set", group.set) for i, group in enumerate(recipe.groups)),
    ]:
        for name, entry in changes.items():
            if name not in SECTIONS:
                raise ValueError(
                    f"{where}.{name}: expected one of {', '.join(SECTIONS)}; check the name"
                )
            if not isinstance(entry, Mapping):
                raise ValueError(f"{where}.{name}: expected names with values, got {entry!r:.60}")
    names = [group.name for group in recipe.groups]
    if len(set(names)) < len(names):
        raise ValueError(f"groups: expected different names, got {names}; rename one")


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        group: name of its group.
        label: contestant it belongs to; cells of one label differ by seed only.
        seed: of initialisation, order and augmentation.
        config: `data`, `model`, `trainer` and `run` as in the configuration of `fit`.
    """

    group: str
    label: str
    seed: int
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its file: letters, digits, underscores and dashes."""
        return f"{_slug(self.label)}-seed{self.seed}"

    @property
    def warmup_steps(self) -> int:
        """Optimiser steps before the objective counts."""
        return int(self.config["model"].get("warmup_steps", 0))

    @property
    def warmup_key(self) -> str:
        """Equal for cells whose training is the same, bit for bit, until the warm-up ends.

        The warm-up is the sum of hinges over all negatives, which takes nothing from the objective
        but the margin, and not even that when it has its own.
        """
        given = self.config["model"]
        free = ("objective",) if given.get("hold_on_collapse") else ("objective", *SELECTION)
        model = {k: v for k, v in given.items() if k not in free}
        parameters = model.pop("objective_parameters", None) or {}
        if model.get("warmup_margin") is None:
            model["margin"] = parameters.get("margin")
        text = canonical({**self.config, "model": model, "seed": self.seed})
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(config: Mapping[str, Any]) -> str:
    """One text for equal configurations, whatever the order of their entries."""
    return json.dumps(config, sort_keys=True)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
