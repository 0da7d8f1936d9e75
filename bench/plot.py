"""The picture of a run: time over that of the product alone, against the batch size."""

from __future__ import annotations

from pathlib import Path

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS
from bench.contestants import GEMM, GEMM_OUT
from bench.records import WALL_TIME, Record, Run
from goal_kernels.data.files import replacing

INCHES_PER_PANEL = (4.2, 3.2)
DOTS_PER_INCH = 130


def training_steps(run: Run) -> list[Record]:
    """What the picture shows: wall times of forward and backward."""
    step = (GOAL_LOSS, FORWARD_BACKWARD, WALL_TIME)
    return [r for r in run.records if (r.op, r.mode, r.metric) == step]


def _curves(records: list[Record]) -> dict[str, list[tuple[int, float]]]:
    """contestant -> [(B, ratio to the product)] in order of B."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in sorted(records, key=lambda r: (r.backend, r.B)):
        if record.ratio_to_gemm is not None and record.backend not in (GEMM, GEMM_OUT):
            curves.setdefault(record.backend, []).append((record.B, record.ratio_to_gemm))
    return curves


def write_plot(run: Run, path: Path) -> None:
    """One panel per objective and dtype, training steps at the largest D, PNG.

    Raises: ValueError when the run timed no training step (`training_steps`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = training_steps(run)
    if not steps:
        raise ValueError("run: expected at least one timed forward_backward case, found none.")
    width = max(r.D for r in steps)
    objectives = sorted({r.objective for r in steps})
    dtypes = sorted({r.dtype for r in steps}, reverse=True)
    across, down = len(objectives), len(dtypes)
    size = (INCHES_PER_PANEL[0] * across, INCHES_PER_PANEL[1] * down)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (dtype, objective) in enumerate((d, o) for d in dtypes for o in objectives):
        axes = figure.add_subplot(down, across, place + 1)
        chosen = [r for r in steps if (r.D, r.dtype, r.objective) == (width, dtype, objective)]
        for name, points in _curves(chosen).items():
            batches, ratios = zip(*points, strict=True)
            axes.plot(batches, ratios, marker="o", markersize=3, label=name)
        axes.axhline(1.0, color="0.4", linestyle="--", linewidth=1)
        axes.set(xscale="log", yscale="log", title=f"{objective}, {dtype}, D = {width}")
        axes.set_xticks(batches_of := sorted({r.B for r in chosen}), list(map(str, batches_of)))
        axes.minorticks_off()
        axes.set(xlabel="batch size B", ylabel="time / time of X @ Y.T")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    machine = run.machine
    figure.suptitle(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    with replacing(path) as temporary:
        # The temporary name does not end in .png, so savefig has to be told.
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
