"""A run beside others: how far they were the same, what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from goal_kernels.retrieval.metrics import RECALLS
from goal_kernels.training.history import History, read_history
from goal_kernels.training.report.charts import Chart, Series, chart_html
from goal_kernels.training.report.curves import (
    DIRECTIONS,
    GAP,
    MOST_LINES,
    STEP,
    collapsed_steps,
)
from goal_kernels.training.report.style import number_cells, table_html
from goal_kernels.training.run_folder import RunFolder, read_record

MOST_BESIDE = MOST_LINES - 1


@dataclass(frozen=True)
class Finished:
    """A finished run. name: its objective, and its folder where that says more. record: its
    `metrics.json`."""

    name: str
    record: dict[str, Any]
    history: History


def read_finished(runs: Sequence[RunFolder]) -> list[Finished]:
    """What runs left. Raises: FileNotFoundError when one of them has not finished; ValueError."""
    records = []
    for run in runs:
        if not run.metrics.is_file():
            raise FileNotFoundError(
                f"{run.path}: expected a finished run, found no {run.metrics.name} in it; "
                f"goal-kernels fit --resume {run.path} goes on with it"
            )
        records.append(read_record(run.metrics))
    names = [record["objective"]["name"] for record in records]
    if len(set(names)) < len(names):
        names = [f"{name} ({run.path.name})" for name, run in zip(names, runs, strict=True)]
    return [
        Finished(name, record, read_history(run.history))
        for name, record, run in zip(names, records, runs, strict=True)
    ]


def beside_section(runs: Sequence[Finished]) -> str:
    """A table and the curves of several runs, this one first; "" where there is none beside it."""
    if len(runs) < 2:
        return ""

    def lines(name: str, by: str = "by_step") -> list[Series]:
        return [Series(run.name, getattr(run.history, by)(name)) for run in runs]

    common = min(_agreement(runs[0].history, run.history) for run in runs[1:])
    band = (0.0, common, "the same") if common else None
    start = (
        f"Their losses are equal number for number up to step {common:,.0f}: they had the same "
        "start, and what differs later is the objective's doing."
        if common
        else "They did not start alike: their first losses differ."
    )
    charts = [
        Chart("Dev rsum", "epoch", "rsum", lines("val/rsum", "by_epoch")),
        Chart("Hardest negatives", STEP, "mean cosine", lines("mining/mean_hardest_negative")),
        Chart("Positives", STEP, "mean cosine", lines("mining/mean_positive")),
        Chart(
            "Gap", STEP, "positive less hardest negative", [_gap(run) for run in runs], band=band
        ),
    ]
    names = " and ".join(escape(run.name) for run in runs)
    return (
        f"<section><h2>Objectives side by side</h2><p>{names}. {start}</p>"
        f"{_table(runs)}"
        f'<div class="charts">{"".join(chart_html(chart) for chart in charts)}</div></section>'
    )


def _agreement(one: History, other: History) -> float:
    """The last step up to which two histories logged the same losses, 0 when none are."""
    common = 0.0
    pairs = zip(one.by_step("train/loss"), other.by_step("train/loss"), strict=False)
    for mine, theirs in pairs:
        if mine != theirs:
            break
        common = mine[0]
    return common


def _gap(run: Finished) -> Series:
    """How far positives are above hardest negatives, at each step that logged both."""
    negatives = dict(run.history.by_step("mining/mean_hardest_negative"))
    positives = run.history.by_step("mining/mean_positive")
    return Series(run.name, [(s, p - negatives[s]) for s, p in positives if s in negatives])


def _table(runs: Sequence[Finished]) -> str:
    """Test metrics and collapsed steps, a column a run."""
    heads = [f"{runs[0].record['split']} split, recall in %", *(run.name for run in runs)]
    rows = [
        [f"{label}, {r}", *number_cells(run.record[key][r] for run in runs)]
        for key, label in DIRECTIONS.items()
        for r in RECALLS
    ]
    rows.append(["rsum", *number_cells(run.record["rsum"] for run in runs)])
    histories = [run.history for run in runs]
    if all(history.by_step(GAP) for history in histories):
        shares = [len(collapsed_steps(h)) / len(h.by_step(GAP)) for h in histories]
        rows.append(["collapsed steps, %", *number_cells(100 * share for share in shares)])
    return (
        f'{table_html(heads, rows, kind="results")}<p class="note">One seed: a difference of a few '
        "points may be chance. goal-kernels compare tests differences over seeds.</p>"
    )
