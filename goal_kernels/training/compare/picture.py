"""The comparison as a picture: one row a contestant, one dot a seed. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goal_kernels.data.files import replacing
from goal_kernels.training.compare.contestants import Contestant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's, which people with any colour vision can tell apart."""

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
    Raises: ModuleNotFoundError naming the extra when matplotlib is missing.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a picture needs matplotlib: pip install 'goal-kernels[plots]'"
        ) from error
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        # Without pyplot there is no window, no global figure and nothing to close.
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=RESOLUTION)


def draw_comparison(path: Path, contestants: Sequence[Contestant], title: str) -> None:
    """Write the picture of the rsums of all contestants, the best on top."""
    with drawing(path, 1, 1, 8.0, 1.4 + 0.27 * len(contestants)) as axes:
        dots(axes[0, 0], contestants)
        axes[0, 0].set_title(title)


def dots(axes: Axes, contestants: Sequence[Contestant], colours: Sequence[str] = ()) -> None:
    """A row for each contestant, the first on top: a dot a seed, a bar at the mean.

    Args:
        axes: to draw on.
        contestants: in the order to show.
        colours: one each; the first of `COLOURS` for all when empty.
    """
    for place, contestant in enumerate(contestants):
        colour = colours[place] if colours else COLOURS[0]
        values = list(contestant.values("rsum").values())
        mean, _ = contestant.summary("rsum")
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.6, markersize=5)
        axes.plot([mean, mean], [place - 0.32, place + 0.32], color=INK, linewidth=1.8)
    axes.set_yticks(range(len(contestants)), [contestant.label for contestant in contestants])
    axes.set_ylim(len(contestants) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("rsum (a dot a seed, the bar is their mean)")
