"""The end of a run: metrics.json, report.html and a table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from goal_kernels.data.files import write_text
from goal_kernels.training.evaluation import RECALLS
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.report.page import report_page
from goal_kernels.training.run_folder import RunFolder, write_json


def print_outcome(outcome: Outcome) -> None:
    """Print the metrics beside chance and, where it is known, the oracle ceiling."""
    table = Table(title=f"{outcome.where}: recall in percent")
    columns = {
        "": None,
        outcome.objective.name: outcome.evaluation.metrics,
        "chance": outcome.evaluation.chance,
        "oracle": outcome.oracle,
    }
    shown = [metrics for metrics in columns.values() if metrics is not None]
    for name, metrics in columns.items():
        if metrics is not None or not name:
            table.add_column(name, justify="right" if name else "left")
    for direction in ("i2t", "t2i"):
        for recall in RECALLS:
            cells = [f"{metrics[direction][recall]:.1f}" for metrics in shown]
            table.add_row(f"{direction} {recall}", *cells)
    table.add_row("rsum", *(f"{metrics['rsum']:.1f}" for metrics in shown))
    Console().print(table)


def finish_run(outcome: Outcome, run: RunFolder) -> None:
    """Write `metrics.json` and `report.html` into the run folder and say where they are."""
    write_text(run.report, report_page(outcome, run))
    write_json(run.metrics, outcome.record())  # last: a run that has its metrics is finished
    print_outcome(outcome)
    last = outcome.checkpoints.get("last")
    if outcome.selected == "best" and last is not None:
        best = outcome.checkpoints["best"]
        print(
            f"above: the best checkpoint on dev (epoch {best.epoch}, step {best.step:,}); the last "
            f"(epoch {last.epoch}, step {last.step:,}) has rsum {last.metrics['rsum']:.1f}"
        )
    print(f"metrics  {run.metrics}\nreport   {run.report}")
