"""`goal-kernels compare`: the command line of comparisons."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from goal_kernels.extras import require
from goal_kernels.terminal import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from goal_kernels.training.compare.contestants import Contestant
    from goal_kernels.training.compare.table import Table

DESCRIPTION = """\
Compare finished runs: mean and standard deviation over seeds, beside chance and oracle, with a
paired test against a baseline.

Runs whose configurations differ by nothing but the seed make one contestant. The test pairs runs
of equal seeds. "p exact" is the sign-flip permutation test, which assumes least; with n seeds it
cannot be below 2 / 2^n (5 seeds: 0.0625), so the mean difference with its 95 % interval and the
t-test, which take differences for normal, stand beside it. Both p-values are after Holm's
correction over all contestants. Testing against the best of many flatters it: name a baseline that
was chosen beforehand where you can.
"""

EPILOG = """\
Examples
  goal-kernels compare runs/*
  goal-kernels compare runs/* --baseline hinge/constant
  goal-kernels compare runs/* --markdown table.md --png table.png
  goal-kernels compare studies/objectives/results --csv table.csv --json table.json
"""


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `compare`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of them"
    )
    parser.add_argument("--baseline", metavar="LABEL", help="test against it (default: the best)")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        help="compare the test results of this checkpoint (default: the one each run reports)",
    )
    for kind in ("markdown", "csv", "json", "png"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write {kind}")


def run_compare(args: argparse.Namespace) -> int:
    """Print the comparison and write the files; 0. Raises: ValueError, MissingExtraError."""
    from goal_kernels.training.compare.contestants import find_baseline, group_runs
    from goal_kernels.training.compare.differences import warnings_about
    from goal_kernels.training.compare.runs import read_runs
    from goal_kernels.training.compare.table import make_table, shown_tables

    if args.png is not None:
        require("--png", "plots", "matplotlib")
    runs = read_runs(args.runs, args.checkpoint)
    for run in runs:
        if not run.trained:
            print(f"left out, an evaluation: {run.path}")
        elif not run.finished:
            print(f"not finished: {run.path} ({run.ending})")
    contestants, remarks = group_runs([run for run in runs if run.trained])
    if not contestants:
        raise ValueError("runs: expected at least one finished run, got none")
    for remark in [*remarks, *warnings_about(contestants)]:
        print(f"warning: {remark}", file=sys.stderr)
    baseline = find_baseline(contestants, args.baseline)
    table = make_table(contestants, baseline)
    show(shown_tables(table))
    _write(args, contestants, baseline, table)
    return 0


def _write(
    args: argparse.Namespace,
    contestants: Sequence[Contestant],
    baseline: Contestant,
    table: Table,
) -> None:
    """The files that the options ask for."""
    from goal_kernels.data.files import write_text
    from goal_kernels.training.compare.picture import draw_comparison
    from goal_kernels.training.compare.table import csv_text, records, whole_table

    texts = {
        "markdown": lambda: whole_table(table).markdown(),
        "csv": lambda: csv_text(table),
        "json": lambda: json.dumps(records(table), indent=2, allow_nan=False) + "\n",
    }
    for kind, text in texts.items():
        path = getattr(args, kind)
        if path is not None:
            write_text(path, text())
            print(f"{kind}  {path}")
    if args.png is not None:
        draw_comparison(args.png, contestants, baseline, "rsum on the test split")
        print(f"png  {args.png}")
