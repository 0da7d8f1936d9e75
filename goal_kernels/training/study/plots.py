"""The pictures of a study's page. Need matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from goal_kernels.training.compare.contestants import Contestant
from goal_kernels.training.compare.picture import COLOURS, INK, SOFT, draw_comparison, drawing
from goal_kernels.training.study.gathered import Gathered, plain_label, registry_order
from goal_kernels.training.study.tuned import draw_trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.9  # inches
REFERENCE = "#7a7a7a"  # contestants that are no objectives: in every panel


Curve = tuple[np.ndarray, np.ndarray]
"""Steps [T] and values over seeds [S, T]."""


@dataclass(frozen=True)
class Logged:
    """What a picture of curves shows: a logged name, how its line looks and what it is called."""

    name: str
    style: str
    meaning: str = ""


@dataclass(frozen=True)
class Panels:
    """A picture of curves.

    Attributes:
        file: its name.
        label: of the y axis.
        lines: what is drawn for every contestant.
        caption: what it shows.
    """

    file: str
    label: str
    lines: Sequence[Logged]
    caption: str


PANELS = (
    Panels("curves.png", "rsum on dev", [Logged("val/rsum", "-")], "rsum on dev, training"),
    Panels(
        "mining.png",
        "mean cosine in the batch",
        [
            Logged("mining/mean_positive", "-", "mean positive"),
            Logged("mining/mean_hardest_negative", ":", "mean hardest negative"),
        ],
        "positives and hardest negatives of the training batches",
    ),
    Panels(
        "matching.png",
        "share of negatives",
        [Logged("matching/negatives_below", "-")],
        "negatives of the matching head that are below their positive",
    ),
)
"""The pictures of curves; another logged number is a row."""


def draw_all(gathered: Gathered, folder: Path) -> dict[str, str]:
    """Write the pictures of a study.

    Returns: for each file name what it shows, in the order of the page.
    """
    title = gathered.recipe.title or gathered.recipe.name
    drawn = {}
    colours = _colours(gathered.main)
    ordered = [colours[contestant.label] for contestant in gathered.main]
    draw_comparison(folder / "rsum.png", gathered.main, gathered.baseline, title, ordered)
    drawn["rsum.png"] = (
        "rsum of every contestant, and its difference to the baseline within each seed"
    )
    for panels in PANELS:
        if _draw_panels(gathered, folder / panels.file, panels):
            drawn[panels.file] = f"{panels.caption}, mean over seeds, from the end of the warm-up"
    for name, contestants in gathered.others.items():
        file = "-".join(name.split()) + ".png"
        _draw_pairs(gathered, folder / file, name, contestants)
        drawn[file] = f"{name} beside {gathered.recipe.groups[0].name}, same seeds"
    if gathered.trials:
        draw_trials(gathered, folder / "trials.png")
        drawn["trials.png"] = (
            "trials on dev by the value of each hyper-parameter; ringed: chosen; dashed: default"
        )
    return drawn


def _colours(contestants: Sequence[Contestant]) -> dict[str, str]:
    """A colour for each triplet weight; grey for what is no objective, unless nothing is one."""
    triplets = {_split(c.label)[0] for c in contestants if _is_objective(c)}
    order = sorted(triplets, key=registry_order("triplet")) or [c.label for c in contestants]
    return {
        c.label: COLOURS[order.index(_split(c.label)[0]) % len(COLOURS)]
        if _is_objective(c) or not triplets
        else REFERENCE
        for c in contestants
    }


def _is_objective(contestant: Contestant) -> bool:
    return "/" in contestant.label


def _split(label: str) -> tuple[str, str]:
    """Triplet and pair weight of an objective's label."""
    triplet, _, pair = label.partition("/")
    return triplet, pair


def curve(contestant: Contestant, name: str) -> Curve | None:
    """A logged number of all runs, at the steps that all of them logged; None if there is none."""
    histories = [dict(run.history.by_step(name)) for run in contestant.runs.values()]
    steps = sorted(set.intersection(*(set(history) for history in histories)))
    if not steps:
        return None
    values = [[history[step] for step in steps] for history in histories]
    return np.array(steps), np.array(values)


def _draw_panels(gathered: Gathered, path: Path, wanted: Panels) -> bool:
    """A panel for each pair weight, a colour for each triplet weight; False if nothing is logged.

    What comes before the end of the warm-up is the same for all, and left out.
    """
    contestants = gathered.main
    if all(curve(c, line.name) is None for c in contestants for line in wanted.lines):
        return False
    start = min(cell.warmup_steps for cell in gathered.cells if cell.group == _first(gathered))
    objectives = [c for c in contestants if _is_objective(c)]
    references = [c for c in contestants if not _is_objective(c)]
    pairs = sorted({_split(c.label)[1] for c in objectives}, key=registry_order("pair")) or [""]
    colours = _colours(contestants)
    count = len(pairs) + 1  # one place is for the legend
    columns = 2 if count == 4 else min(PANEL_COLUMNS, count)
    rows = math.ceil(count / columns)
    with drawing(path, rows, columns, columns * PANEL_WIDTH, rows * PANEL_HEIGHT) as grid:
        places = list(grid.flat)
        for axes, pair in zip(places, pairs, strict=False):
            members = [c for c in objectives if _split(c.label)[1] == pair]
            for contestant in [*references, *members]:
                for line in wanted.lines:
                    _line(axes, contestant, line, colours[contestant.label], start)
            axes.set_title(f"pair weight {pair}" if pair else "")
            axes.grid()
            axes.set_xlabel("optimiser step")
            axes.set_ylabel(wanted.label)
        _same_limits(places[: len(pairs)])
        for axes in places[len(pairs) :]:
            axes.axis("off")
        _legend(places[-1], [*sorted(objectives, key=_triplet_order), *references], wanted.lines)
    return True


def _triplet_order(contestant: Contestant) -> int:
    return registry_order("triplet")(_split(contestant.label)[0])


def _line(axes: Axes, contestant: Contestant, line: Logged, colour: str, start: int) -> None:
    """The mean over seeds, which start too far apart for their range to show anything.

    Lightning counts the steps of logged values from 0: the value at step t - 1 is after t steps.
    """
    found = curve(contestant, line.name)
    if found is None:
        return
    steps, values = found[0] + 1, found[1]
    steps, values = steps[steps >= start], values[:, steps >= start]
    axes.plot(steps, values.mean(axis=0), line.style, color=colour, linewidth=1.6)


def _same_limits(panels: Sequence[Axes]) -> None:
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _first(gathered: Gathered) -> str:
    return gathered.recipe.groups[0].name


def _legend(axes: Axes, contestants: Sequence[Contestant], lines: Sequence[Logged]) -> None:
    """What colours and line styles mean, in a place of its own."""
    colours = _colours(contestants)
    named = {
        f"triplet weight {_split(c.label)[0]}" if _is_objective(c) else c.label: colours[c.label]
        for c in contestants
    }
    for name, colour in named.items():
        axes.plot([], [], color=colour, linewidth=2.2, label=name)
    for line in lines:
        if line.meaning:
            axes.plot([], [], line.style, color=INK, linewidth=1.6, label=line.meaning)
    axes.legend(loc="center left", alignment="left")


def _draw_pairs(
    gathered: Gathered, path: Path, name: str, contestants: Sequence[Contestant]
) -> None:
    """Each contestant of a group joined with the first group's of the same objective and seeds."""
    partners = {c.label: c for c in gathered.main}
    chance = next(iter(contestants[0].runs.values())).references.get("chance")
    with drawing(path, 1, 1, 8.0, 1.6 + 0.27 * len(contestants)) as grid:
        axes = grid[0, 0]
        for place, contestant in enumerate(contestants):
            own = contestant.values("rsum")
            partner = partners.get(plain_label(contestant.label, name))
            mine = float(np.mean(list(own.values())))
            if partner is not None:
                shared = [v for seed, v in partner.values("rsum").items() if seed in own]
                if shared:
                    its = float(np.mean(shared))
                    axes.plot([mine, its], [place, place], color=SOFT, linewidth=1, zorder=1)
                    axes.plot(its, place, "o", color=COLOURS[0], markersize=6)
            axes.plot(mine, place, "s", color=COLOURS[1], markersize=6)
        labels = [plain_label(contestant.label, name) for contestant in contestants]
        axes.set_yticks(range(len(contestants)), labels)
        axes.set_ylim(len(contestants) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        if chance is not None:
            axes.axvline(chance["rsum"], color=INK, linestyle="--", linewidth=1, label="chance")
        axes.plot([], [], "s", color=COLOURS[1], label=name)
        axes.plot([], [], "o", color=COLOURS[0], label=_first(gathered))
        axes.set_xlabel("rsum on the test split")
        axes.figure.legend(loc="outside upper right", ncols=3)
