"""The comparison as a table: rows of numbers first, then text of several kinds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goal_kernels.terminal import Table as Shown
from goal_kernels.training.compare.contestants import (
    COLUMNS,
    Contestant,
    column,
    compare_with,
)
from goal_kernels.training.compare.statistics import Comparison, p_text

TESTED = ("Δ rsum", "95 % interval", "p exact", "p t-test")
"""Columns of the test against the baseline; both p-values after Holm's correction."""

HEADS = ("", "seeds", *COLUMNS, *TESTED)


@dataclass(frozen=True)
class Row:
    """A contestant, or a reference (chance, ridge, oracle) with no seeds.

    Attributes:
        label: its name.
        seeds: number of runs, 0 for a reference.
        summaries: mean and standard deviation by column; None for one seed.
        comparison: with the baseline; None for that and for references, and without a shared seed.
    """

    label: str
    seeds: int
    summaries: Mapping[str, tuple[float, float | None]]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Table:
    """Rows with the best contestant first, references last; `baseline` is what tests refer to."""

    rows: Sequence[Row]
    baseline: str


def make_table(contestants: Sequence[Contestant], baseline: Contestant) -> Table:
    """The table of contestants, in their order, beside chance, ridge and oracle."""
    tests = compare_with(baseline, contestants)
    rows = [
        Row(c.label, len(c.runs), {name: c.summary(name) for name in COLUMNS}, tests.get(c.label))
        for c in contestants
    ]
    first = next(iter(contestants[0].runs.values()))
    for label, metrics in first.references.items():
        rows.append(Row(label, 0, {name: (column(metrics, name), None) for name in COLUMNS}))
    return Table(rows, baseline.label)


def cells(row: Row, baseline: str) -> list[str]:
    """The text of a row: label, seeds, `COLUMNS`, `TESTED`."""
    numbers = []
    for mean, deviation in row.summaries.values():
        spread = "" if deviation is None else f" ± {deviation:.1f}"
        numbers.append(f"{mean:.1f}{spread}")
    return [row.label, str(row.seeds or ""), *numbers, *_tested(row, baseline)]


def _tested(row: Row, baseline: str) -> list[str]:
    if row.label == baseline:
        return ["baseline", "", "", ""]
    if row.comparison is None:
        return ["", "", "", ""]
    test = row.comparison.test
    p_values = [p_text(row.comparison.holm_exact), p_text(row.comparison.holm_student)]
    return [f"{test.difference:+.1f}", test.interval_text, *p_values]


def whole_table(table: Table) -> Shown:
    """Everything in one table, for Markdown."""
    return Shown("", HEADS, [cells(row, table.baseline) for row in table.rows])


def shown_tables(table: Table) -> list[Shown]:
    """Two tables for the terminal, since one would be too wide: recalls, and the tests."""
    whole = whole_table(table)
    last = len(COLUMNS) + 2  # cells before the tests: label, seeds, recalls
    tested = [0, 1, last - 1, *range(last, len(HEADS))]
    contestants = [line for row, line in zip(table.rows, whole.rows, strict=True) if row.seeds]
    return [
        Shown(
            "Recall in percent, mean ± standard deviation over seeds",
            whole.columns[:last],
            [line[:last] for line in whole.rows],
        ),
        Shown(
            f"rsum against {table.baseline}, p-values after Holm's correction",
            [whole.columns[place] for place in tested],
            [[line[place] for place in tested] for line in contestants],
        ),
    ]


def records(table: Table) -> list[dict[str, Any]]:
    """Plain records with unrounded numbers, for JSON and CSV."""
    made = []
    for row in table.rows:
        record: dict[str, Any] = {"label": row.label, "seeds": row.seeds}
        for name, (mean, deviation) in row.summaries.items():
            record |= {name: mean, f"{name} std": deviation}
        comparison = row.comparison
        test = None if comparison is None else comparison.test
        low, high = (None, None) if test is None or test.interval is None else test.interval
        record |= {
            "baseline": table.baseline,
            "pairs": None if test is None else test.pairs,
            "difference": None if test is None else test.difference,
            "interval low": low,
            "interval high": high,
            "p exact": None if test is None else test.p_exact,
            "p t-test": None if test is None else test.p_student,
            "p exact, Holm": None if comparison is None else comparison.holm_exact,
            "p t-test, Holm": None if comparison is None else comparison.holm_student,
        }
        made.append(record)
    return made


def csv_text(table: Table) -> str:
    """The records as CSV with a head."""
    made = records(table)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(made[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue()
