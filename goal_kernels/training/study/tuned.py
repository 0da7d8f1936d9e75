"""What the page of a tuned study shows beside the ranking: choices, and what they brought."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

from goal_kernels.registry import PARAMETERS
from goal_kernels.terminal import markdown_table
from goal_kernels.training.compare.picture import COLOURS, INK, SOFT, drawing
from goal_kernels.training.compare.statistics import compare_values, p_text
from goal_kernels.training.study.gathered import Gathered, plain_label, registry_order
from goal_kernels.training.study.tuning import Parameters, Tuning

COLUMNS = 3
Seeds = dict[int, float]
"""rsum on the test split by seed."""


def tuned_sections(gathered: Gathered) -> Iterator[str]:
    """The parts of the page that only a tuned study has."""
    tuning = gathered.recipe.tuning
    if tuning is None:
        return
    yield "### How it was tuned\n\n" + _drawn(tuning)
    yield "### What was chosen\n\n" + _choices(gathered, tuning)
    yield "### What it brought\n\n" + _brought(gathered, tuning)


def _drawn(tuning: Tuning) -> str:
    settings = ", ".join(f"{name} ({_said(s)})" for name, s in tuning.settings.items())
    text = (
        f"{tuning.trials} trials of each objective with hyper-parameters, judged by the mean rsum "
        f"on the dev split of {len(tuning.seeds)} runs, seeds "
        f"{', '.join(map(str, tuning.seeds))}. First the settings that it has the hyper-parameters "
        f"for: {settings}; then a Latin hypercube of the ranges, drawn with seed {tuning.seed}.\n\n"
    )
    rows = [
        [name, r.scale, *(f"{x:g}" for x in (r.low, r.high, PARAMETERS[name].default))]
        for name, r in tuning.ranges.items()
    ]
    return text + markdown_table(["", "scale", "from", "to", "default"], rows, 2) + "\n"


def _said(parameters: Parameters) -> str:
    return ", ".join(f"{name} {v:g}" for name, v in parameters.items()) or "nothing changed"


def _choices(gathered: Gathered, tuning: Tuning) -> str:
    """The best trial of each objective on dev, where its values are marked that lie at an end."""
    text = (
        "The rsum is that on dev, where the choice was made. ↓, ↑: the lowest, the highest value "
        "that was tried; a better one may lie beyond.\n\n"
    )
    heads, rows = ["", "chosen", "trials", "rsum", "worst trial", "first trial"], []
    for objective, rsums in gathered.trials.items():
        chosen, trials = gathered.chosen[objective], tuning.of(objective)
        values = []
        for name in tuning.names(objective):
            own, tried = _value(chosen, name), [_value(trial, name) for trial in trials]
            end = "↓" * (own == min(tried)) + "↑" * (own == max(tried))
            values.append(f"{name} {own:g}{end}")
        cells = [objective, ", ".join(values), str(len(rsums))]
        rows.append([*cells, *(f"{rsum:.1f}" for rsum in (max(rsums), min(rsums), rsums[0]))])
    return text + markdown_table(heads, rows, 2) + "\n"


def _value(parameters: Parameters, name: str) -> float:
    return parameters.get(name, PARAMETERS[name].default)


def _brought(gathered: Gathered, tuning: Tuning) -> str:
    """Chosen values against each setting, and the settings against the first of them."""
    tuned = {contestant.label: contestant.values("rsum") for contestant in gathered.main}
    settings: dict[str, dict[str, Seeds]] = {}
    for name, setting in tuning.settings.items():
        beside = {plain_label(c.label, name): c.values("rsum") for c in gathered.of_groups([name])}
        same = {o: rsums for o, rsums in tuned.items() if gathered.chosen[o] == setting}
        settings[name] = beside | same
    first, *others = tuning.settings
    lines = [
        "Δ rsum on the test split, within seeds, with the 95 % interval and the p of the t-test, "
        "corrected by Holm in each table. An objective that chose a setting is left out of its "
        "table.\n"
    ]
    lines += [_table("tuned", tuned, name, settings[name]) for name in settings]
    lines += [_table(name, settings[name], first, settings[first]) for name in others]
    return "\n".join(lines)


def _table(name: str, own: Mapping[str, Seeds], other: str, theirs: Mapping[str, Seeds]) -> str:
    """Objectives whose runs differ, one against the other; the last line is their mean."""
    pairs = {
        objective: (rsums, theirs[objective])
        for objective, rsums in own.items()
        if objective in theirs and theirs[objective] is not rsums
    }
    rows, tests = [], compare_values(pairs)
    for objective, found in tests.items():
        mine, its = pairs[objective]
        shared = mine.keys() & its.keys()
        means = [f"{fmean(side[seed] for seed in shared):.1f}" for side in (mine, its)]
        change = [f"{found.test.difference:+.1f}", found.test.interval_text]
        rows.append([objective, str(len(shared)), *means, *change, p_text(found.holm_student)])
    if tests:
        mean = fmean(found.test.difference for found in tests.values())
        rows.append(["mean", "", "", "", f"{mean:+.1f}", "", ""])
    return markdown_table(["", "seeds", name, other, "Δ", "95 % interval", "p"], rows) + "\n"


def draw_trials(gathered: Gathered, path: Path) -> None:
    """A panel for each hyper-parameter, a dot for each trial of each objective that has it."""
    tuning = gathered.recipe.tuning
    assert tuning is not None
    triplets = {objective: objective.partition("/")[0] for objective in gathered.trials}
    order = sorted(set(triplets.values()), key=registry_order("triplet"))
    colours = dict(zip(order, COLOURS, strict=False))
    rows = math.ceil(len(tuning.ranges) / COLUMNS)
    with drawing(path, rows, COLUMNS, 10.5, 0.4 + 2.9 * rows) as grid:
        from matplotlib.ticker import LogLocator

        places = list(grid.flat)
        for axes, (name, known) in zip(places, tuning.ranges.items(), strict=False):
            for objective, rsums in gathered.trials.items():
                if name not in tuning.names(objective):
                    continue
                for parameters, rsum in zip(tuning.of(objective), rsums, strict=True):
                    point, colour = (_value(parameters, name), rsum), colours[triplets[objective]]
                    axes.plot(*point, "o", color=colour, alpha=0.6, markersize=5)
                    if parameters == gathered.chosen[objective]:
                        axes.plot(*point, "o", mfc="none", mec=INK, markersize=9)
            axes.axvline(PARAMETERS[name].default, color=SOFT, linestyle="--", linewidth=1)
            axes.set(xscale=known.scale, xlabel=name, ylabel="rsum on dev")
            if known.scale == "log":  # whose ranges are too short for powers of ten alone
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_formatter("")
            axes.grid()
        for axes in places[len(tuning.ranges) :]:
            axes.axis("off")
        for triplet, colour in colours.items():
            places[0].plot([], [], "o", color=colour, label=f"triplet weight {triplet}")
        places[0].figure.legend(loc="outside upper right", ncols=len(colours))
