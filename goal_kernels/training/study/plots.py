"""The pictures of a study's page. Need matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from goal_kernels.training.compare.contestants import Contestant
from goal_kernels.training.compare.picture import COLOURS, INK, SOFT, dots, drawing
from goal_kernels.training.study.gathered import Gathered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.9  # inches
REFERENCE = "#7a7a7a"  # contestants that are no objectives: in every panel


Curve = tuple[np.ndarray, np.ndarray]
"""Steps [T] and values over seeds [S, T]."""


def draw_all(gathered: Gathered, folder: Path) -> dict[str, str]:
    """Write the pictures of a study.

    Returns: for each file name what it shows, in the order of the page.
    """
    title = gathered.recipe.title or gathered.recipe.name
    drawn = {}
    colours = _colours(gathered.main)
    with drawing(folder / "rsum.png", 1, 1, 8.0, 1.4 + 0.27 * len(gathered.main)) as axes:
        dots(axes[0, 0], gathered.main, [colours[c.label] for c in gathered.main])
        axes[0, 0].set_title(f"{title}: rsum on the test split")
    drawn["rsum.png"] = "rsum of every contestant, a dot a seed"
    for file, label, names, what in (
        ("curves.png", "rsum on dev", {"val/rsum": "-"}, "rsum on dev during training"),
        (
            "mining.png",
            "mean cosine in the batch",
            {"mining/mean_positive": "-", "mining/mean_hardest_negative": ":"},
            "positives (solid) and hardest negatives (dotted) of the training batches",
        ),
    ):
        if _draw_panels(gathered, folder / file, label, names):
            drawn[file] = f"{what}, mean over seeds"
    for name, contestants in gathered.others.items():
        file = "-".join(name.split()) + ".png"
        _draw_pairs(gathered, folder / file, name, contestants)
        drawn[file] = f"{name} beside {gathered.recipe.groups[0].name}, same seeds"
    return drawn


def _colours(contestants: Sequence[Contestant]) -> dict[str, str]:
    """A colour for each triplet weight, grey for what is no objective."""
    heads = list(dict.fromkeys(sorted(_split(c.label)[0] for c in contestants if _is_objective(c))))
    return {
        c.label: COLOURS[heads.index(_split(c.label)[0]) % len(COLOURS)]
        if _is_objective(c)
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


def _draw_panels(gathered: Gathered, path: Path, label: str, names: Mapping[str, str]) -> bool:
    """A panel for each pair weight, a colour for each triplet weight; False if nothing is logged.

    Args:
        gathered: the study.
        path: of the picture.
        label: of the y axis.
        names: logged names, and the line style of each.
    """
    contestants = gathered.main
    if all(curve(c, name) is None for c in contestants for name in names):
        return False
    order = sorted(filter(_is_objective, contestants), key=lambda c: c.label)
    panels = list(dict.fromkeys(_split(c.label)[1] for c in order)) or [""]
    references = [c for c in contestants if not _is_objective(c)]
    colours = _colours(contestants)
    columns = min(PANEL_COLUMNS, len(panels) + 1)
    rows = math.ceil((len(panels) + 1) / columns)  # one place is for the legend
    with drawing(path, rows, columns, columns * PANEL_WIDTH, rows * PANEL_HEIGHT) as grid:
        places = list(grid.flat)
        for axes, panel in zip(places, panels, strict=False):
            members = [c for c in order if _split(c.label)[1] == panel]
            for contestant in [*references, *members]:
                for name, style in names.items():
                    _line(axes, contestant, name, style, colours[contestant.label])
            axes.set_title(f"pair weight {panel}" if panel else "")
            axes.grid()
            axes.set_xlabel("optimiser step")
            axes.set_ylabel(label)
        _same_limits(places[: len(panels)])
        _shade_warmup(gathered, places[: len(panels)])
        for axes in places[len(panels) :]:
            axes.axis("off")
        shown = {_split(c.label)[0]: colours[c.label] for c in order}
        shown |= {c.label: REFERENCE for c in references}
        _legend(places[-1], shown)
    return True


def _line(axes: Axes, contestant: Contestant, name: str, style: str, colour: str) -> None:
    """The mean over seeds, and where the style is solid the range of the seeds behind it."""
    found = curve(contestant, name)
    if found is None:
        return
    steps, values = found
    axes.plot(steps, values.mean(axis=0), style, color=colour, linewidth=1.6)
    if len(values) > 1 and name.startswith("val/"):
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)


def _same_limits(panels: Sequence[Axes]) -> None:
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axes.margins(x=0.02)


def _shade_warmup(gathered: Gathered, panels: Sequence[Axes]) -> None:
    """A tint over the steps that every objective shares."""
    steps = min(cell.warmup_steps for cell in gathered.cells if cell.group == _first(gathered))
    if steps:
        for axes in panels:
            axes.axvspan(0, steps, color="#f0eee8", zorder=0, linewidth=0)
            axes.set_xlim(left=0)


def _first(gathered: Gathered) -> str:
    return gathered.recipe.groups[0].name


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    """Names and colours of the lines, in a place of their own."""
    for name, colour in colours.items():
        axes.plot([], [], color=colour, linewidth=2.2, label=name)
    axes.legend(loc="center left", title="triplet weight", alignment="left")


def _draw_pairs(
    gathered: Gathered, path: Path, name: str, contestants: Sequence[Contestant]
) -> None:
    """Each contestant of a group joined with the first group's of the same objective and seeds."""
    partners = {c.label: c for c in gathered.main}
    chance = next(iter(contestants[0].runs.values())).chance
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
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.9 / len(contestants)), ncols=3)


def plain_label(label: str, group: str) -> str:
    """The objective of a contestant whose label ends with its group."""
    return label.removesuffix(f", {group}")
