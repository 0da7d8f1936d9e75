"""The record of an evaluation as tables: for a terminal, for a pipe, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from goal_kernels.evaluate.results import shares
from goal_kernels.retrieval.metrics import DIRECTIONS, RECALLS
from goal_kernels.terminal import Table
from goal_kernels.training.compare.picture import COLOURS, drawing

BAR = 22  # characters of the longest bar of a histogram
NAMES = {"i2t": "image to text", "t2i": "text to image"}


def tables(record: dict[str, Any]) -> list[Table]:
    """Recalls, ranks, and, where they are known, siblings and everything that is true."""
    found = [recall_table(record), rank_table(record)]
    if record["siblings"]:
        found.append(sibling_table(record["siblings"]))
    if record["truth"] is not None:
        found.append(truth_table(record["truth"]))
    return found


def recall_table(record: dict[str, Any]) -> Table:
    """Recalls of every protocol beside chance and, where it is known, the oracle's ceiling."""
    rows = []
    for name, part in record["protocols"].items():
        folds = part["folds"]
        rows.append(_recall_row(name if folds == 1 else f"{name}, mean", part["mean"]))
        if folds > 1:
            rows.append(_recall_row(f"  std of {folds} folds", part["std"]))
        rankings = record["rankings"].get(name, {})
        rows += [_recall_row(f"  {own}", metrics) for own, metrics in rankings.items()]
        rows.append(_recall_row("  chance", part["chance"]))
    if record["oracle"] is not None:
        rows.append(_recall_row("oracle", record["oracle"]))
    columns = [f"{direction} {recall}" for direction in DIRECTIONS for recall in RECALLS]
    return Table("recall in percent", ["", *columns, "rsum"], rows)


def _recall_row(name: str, table: dict[str, Any]) -> list[str]:
    cells = [table[direction][recall] for direction in DIRECTIONS for recall in RECALLS]
    return [name, *(f"{cell:.1f}" for cell in (*cells, table["rsum"]))]


def rank_table(record: dict[str, Any]) -> Table:
    """Median and mean rank, mean recalls, ties."""
    columns = ["", "i2t median", "mean", "t2i median", "mean", "ar", "ari", "tied"]
    rows = []
    for name, part in record["protocols"].items():
        mean = part["mean"]
        cells = [mean[d][rank] for d in DIRECTIONS for rank in ("median_rank", "mean_rank")]
        cells += [mean["ar"], mean["ari"]]
        ties = f"{100 * part['tie_fraction']:.2f} %"
        rows.append([name, *(f"{cell:.1f}" for cell in cells), ties])
    return Table("ranks from 1; ar, ari: mean recall of i2t, t2i; tied queries", columns, rows)


def sibling_table(siblings: dict[str, dict[str, float]]) -> Table:
    """R@1 of every ranking among the members of a query's family."""
    rows = [[name, *(f"{part[d]:.1f}" for d in DIRECTIONS)] for name, part in siblings.items()]
    return Table("R@1 among siblings, in percent", ["", *DIRECTIONS], rows)


def truth_table(truth: dict[str, Any]) -> Table:
    """What changes when everything true counts, not only what was written for an image."""
    names = ["mAP@R", "R-precision", *RECALLS, "false_negatives", "mean_relevant"]
    rows = [[d, *(_number(truth[d].get(name)) for name in names)] for d in DIRECTIONS]
    columns = ["", "mAP@R", "R-prec.", *RECALLS, "errors that are true", "true a query"]
    return Table("in percent, all true pairs relevant", columns, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def histogram_text(name: str, histogram: dict[str, dict[str, list[int]]]) -> str:
    """Ranks of both directions as bars, side by side."""
    labels, found = shares(histogram)
    longest = max(share.max() for share in found.values())
    lines = ["  ".join(["rank".rjust(15), *(d.ljust(8 + BAR) for d in DIRECTIONS)])]
    for row, label in enumerate(labels):
        cells = [_bar(found[direction][row], longest) for direction in DIRECTIONS]
        lines.append("  ".join([label.rjust(15), *cells]))
    return "\n".join([f"share of queries by rank, {name}", *(line.rstrip() for line in lines)])


def _bar(share: float, longest: float) -> str:
    """A share in percent as a number and a bar."""
    return f"{share:5.1f} % {'#' * round(BAR * share / longest)}".ljust(8 + BAR)


def markdown(found: Sequence[Table]) -> str:
    """Tables in Markdown."""
    return "\n".join(table.markdown() for table in found)


def write_histogram(path: Path, record: dict[str, Any]) -> None:
    """Write a PNG: share of queries by rank, one panel a protocol, both directions.

    Raises: MissingExtraError when matplotlib is missing.
    """
    protocols = record["protocols"]
    with drawing(path, len(protocols), 1, 7.2, 3.4 * len(protocols)) as grid:
        for panel, (name, part) in zip(grid[:, 0], protocols.items(), strict=True):
            labels, found = shares(part["histogram"])
            for offset, colour, direction in zip((-0.2, 0.2), COLOURS, DIRECTIONS, strict=False):
                recall = part["mean"][direction]["R@1"]
                label = f"{NAMES[direction]}, R@1 {recall:.1f} %"
                places = np.arange(len(labels)) + offset
                panel.bar(places, found[direction], 0.4, color=colour, label=label)
            panel.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=8)
            panel.set_xlabel("rank of the best match")
            panel.set_ylabel("queries in percent")
            panel.set_title(f"{name}: {part['meaning']}", fontsize=10)
            panel.legend(fontsize=9)
