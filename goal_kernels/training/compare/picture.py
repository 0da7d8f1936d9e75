"""The comparison as a picture: one row a contestant, one dot a seed. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goal_kernels.data.files import replacing
from goal_kernels.extras import require
from goal_kernels.training.compare.contestants import Contestant, compare_with
from goal_kernels.training.compare.statistics import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#999999", "#661100"),
)
"""Okabe & Ito's, which people with any colour vision can tell apart, a grey and a dark red."""

INK, SOFT, RULE = "#1c2128", "#59636e", "#dedbd3"
RESOLUTION = 150  # dots an inch
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


@contextmanager
def drawing(path: Path, rows: int, columns: int, width: float, height: float) -> Iterator[Any]:
    """A grid of axes that becomes the PNG `path` when the block ends well.

    Args:
        path: of the file, replaced whole.
        rows, columns: of the grid, yielded as a 2-d array of axes.
        width, height: of the picture, inches.
    Raises: MissingExtraError when matplotlib is missing.
    """
    require("a picture", "plots", "matplotlib")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        # Without pyplot there is no window, no global figure and nothing to close.
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=RESOLUTION)


def draw_comparison(
    path: Path,
    contestants: Sequence[Contestant],
    baseline: Contestant,
    title: str,
    colours: Sequence[str] = (),
) -> None:
    """Write the picture of a comparison: rsums, and beside them differences within seeds.

    Args:
        path: of the PNG.
        contestants: in the order to show, the first on top.
        baseline: what the differences are to.
        title: heading.
        colours: one each; the first of `COLOURS` for all when empty.
    """
    colours = colours or [COLOURS[0]] * len(contestants)
    tests = compare_with(baseline, contestants)
    with drawing(path, 1, 2, 10.0, 1.4 + 0.27 * len(contestants)) as grid:
        rsums, differences = grid[0]
        for place, (contestant, colour) in enumerate(zip(contestants, colours, strict=True)):
            values = contestant.values("rsum")
            _row(rsums, place, list(values.values()), colour)
            its = baseline.values("rsum")
            if contestant.label != baseline.label:
                _row(differences, place, [values[s] - its[s] for s in values if s in its], colour)
                found = tests.get(contestant.label)
                if found and found.test.interval:
                    ends = found.test.interval
                    differences.plot(ends, [place, place], color=INK, linewidth=1.2)
        for axes in (rsums, differences):
            axes.set_ylim(len(contestants) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
        rsums.set_yticks(range(len(contestants)), [c.label for c in contestants])
        differences.set_yticks([])
        differences.axvline(0.0, color=INK, linewidth=1)
        rsums.set_title(title)
        rsums.set_xlabel("rsum\n(a dot a seed, the bar is their mean)")
        differences.set_xlabel(
            f"difference to {baseline.label}\n(same seed; 95 % interval of the mean)"
        )


def _row(axes: Axes, place: int, values: Sequence[float], colour: str) -> None:
    """A dot for each value and a bar at their mean."""
    if values:
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=5)
        mean, _ = mean_and_deviation(values)
        axes.plot([mean, mean], [place - 0.32, place + 0.32], color=INK, linewidth=1.8)
