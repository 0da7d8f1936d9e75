"""The picture of a run: training steps over the product and over eager torch, and their memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, Kind
from bench.lineup import BASELINES, EAGER, GEMM, GEMM_OUT, REFERENCE
from bench.results import PEAK_MEMORY, WALL_TIME, Record, Run
from goal_kernels.data.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

INCHES_PER_PANEL = (4.2, 3.2)
DOTS_PER_INCH = 130
TICKS_PER_DECADE = (1.0, 2.0, 5.0)
LEAST_COLUMNS = 3
"""The row below the objectives: over eager once per objective, and memory."""

Points = list[tuple[int, float]]
"""(B, ratio) in order of B."""


def training_steps(run: Run) -> list[Record]:
    """What the picture shows: wall times of forward and backward at the largest D."""
    step = (GOAL_LOSS, FORWARD_BACKWARD, WALL_TIME)
    steps = [r for r in run.records if (r.op, r.mode, r.metric) == step]
    width = max((r.D for r in steps), default=0)
    return [r for r in steps if width == r.D]


def _kinds(records: Iterable[Record]) -> list[Kind]:
    return sorted({r.case.kind for r in records})


def _plain(kind: Kind) -> str:
    return str(kind).replace("`", "")


def _objectives(records: Iterable[Record]) -> list[str]:
    return sorted({r.objective for r in records})


def _curves(records: Iterable[Record], baseline: str) -> dict[str, Points]:
    """Method -> ratios to a baseline; neither the products nor the reference compete."""
    curves: dict[str, Points] = {}
    for record in sorted(records, key=lambda r: (r.backend, r.B)):
        ratio = record.ratio_to(baseline)
        if ratio is not None and record.backend not in (GEMM, GEMM_OUT, REFERENCE):
            curves.setdefault(record.backend, []).append((record.B, ratio))
    return curves


def _draw_ratios(axes: Axes, curves: dict[str, Points], colours: dict[str, str], base: str) -> None:
    """Ratios against B on logarithmic axes, with the line where both take as long."""
    from matplotlib.ticker import LogLocator

    for name, points in curves.items():
        batches, ratios = zip(*points, strict=True)
        axes.plot(batches, ratios, marker="o", markersize=3, label=name, color=colours[name])
    axes.axhline(1.0, color="0.4", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel=f"time / time of {base}")
    ticks = sorted({batch for points in curves.values() for batch, _ in points})
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.yaxis.set_major_locator(LogLocator(subs=TICKS_PER_DECADE))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _draw_over_eager(axes: Axes, steps: Iterable[Record], objective: str) -> None:
    """The library's backends over eager torch, one curve per backend and kind."""
    curves = {}
    chosen = [r for r in steps if r.objective == objective]
    for kind in _kinds(chosen):
        same = [r for r in chosen if r.case.kind == kind]
        for name, points in _curves(same, EAGER).items():
            if name not in BASELINES:
                curves[f"{name}, {_plain(kind)}"] = points
    _draw_ratios(axes, curves, _colours(curves), "eager")
    axes.set_title(f"{objective}: over eager torch")
    axes.set_ylim(bottom=axes.get_ylim()[0] / 10)  # room for the legend
    axes.legend(fontsize="small", loc="lower left")


def _draw_memory(axes: Axes, run: Run, colours: dict[str, str]) -> None:
    """Bars of peak memory of a training step at the largest measured B, per objective and dtype."""
    step = (GOAL_LOSS, FORWARD_BACKWARD, PEAK_MEMORY)
    weighed = [r for r in run.records if (r.op, r.mode, r.metric) == step]
    batch = max((r.B for r in weighed), default=0)
    weighed = [r for r in weighed if batch == r.B]
    if not weighed:
        axes.set_axis_off()
        return
    groups = sorted({(r.objective, r.dtype) for r in weighed})
    names = sorted({r.backend for r in weighed}, key=lambda n: (n not in BASELINES, n))
    thickness = 0.8 / len(names)
    for place, name in enumerate(names):
        found = {(r.objective, r.dtype): r.p50 for r in weighed if r.backend == name}
        at = [groups.index(group) + place * thickness for group in found]
        bars = axes.barh(at, list(found.values()), thickness, label=name, color=colours[name])
        axes.bar_label(bars, fmt="{:.4g}", fontsize="x-small", padding=2)
    axes.set_yticks(
        [i + 0.4 - thickness / 2 for i in range(len(groups))],
        [f"{objective}\n{dtype}" for objective, dtype in groups],
        fontsize="small",
    )
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="MiB beyond inputs and gradients")
    axes.set_title(f"peak memory, B = {batch}")
    axes.set_xlim(right=30 * axes.get_xlim()[1])  # room for the legend
    axes.legend(fontsize="small", loc="upper right")


def _colours(names: Iterable[str]) -> dict[str, str]:
    """The same colour for the same name in every panel."""
    return {name: f"C{place}" for place, name in enumerate(sorted(names))}


def _draw_upper(
    figure: SubFigure, steps: Sequence[Record], columns: int, colours: dict[str, str]
) -> None:
    """A row per objective, a column per kind: every method over the product."""
    kinds, objectives = _kinds(steps), _objectives(steps)
    panels = figure.subplots(len(objectives), columns, squeeze=False)
    for row, objective in zip(panels, objectives, strict=True):
        for axes, kind in zip(row, kinds, strict=False):
            chosen = [r for r in steps if (r.objective, r.case.kind) == (objective, kind)]
            _draw_ratios(axes, _curves(chosen, GEMM), colours, "X @ Y.T")
            axes.set_title(f"{objective}, {_plain(kind)}")
        for axes in row[len(kinds) :]:
            axes.set_axis_off()
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    names = [name for name in colours if name in lines]
    figure.legend([lines[n] for n in names], names, loc="outside upper center", ncols=len(names))


def write_plot(run: Run, path: Path) -> None:
    """PNG: time over the product per objective and kind; below, over eager torch, and memory.

    Raises: ValueError when the run timed no training step (`training_steps`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = training_steps(run)
    if not steps:
        raise ValueError("run: expected at least one timed forward_backward case, found none.")
    objectives = _objectives(steps)
    columns = max(LEAST_COLUMNS, len(_kinds(steps)))
    rows = len(objectives)
    size = (INCHES_PER_PANEL[0] * columns, INCHES_PER_PANEL[1] * (rows + 1))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=(rows, 1))
    colours = _colours({r.backend for r in run.records})
    _draw_upper(upper, steps, columns, colours)
    panels = lower.subplots(1, len(objectives) + 1)
    for axes, objective in zip(panels, objectives, strict=False):
        _draw_over_eager(axes, steps, objective)
    _draw_memory(panels[-1], run, colours)
    machine = run.machine
    figure.suptitle(
        f"Forward + backward, D = {steps[0].D}: {machine['device']}, {machine['threads']} threads, "
        f"torch {machine['torch']}"
    )
    with replacing(path) as temporary:
        # The temporary name does not end in .png, so savefig has to be told.
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
