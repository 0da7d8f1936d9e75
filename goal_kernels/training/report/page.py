"""The report page: headline, metrics, curves, examples, configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from goal_kernels.retrieval.metrics import RECALLS
from goal_kernels.training.history import read_history
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.report.beside import beside_section, read_finished
from goal_kernels.training.report.curves import DIRECTIONS, curves_section
from goal_kernels.training.report.gallery import Gallery
from goal_kernels.training.report.mined import mined_section
from goal_kernels.training.report.settings import settings_section
from goal_kernels.training.report.style import number_cells, page_html, table_html
from goal_kernels.training.run_folder import RunFolder

MOST_RSUM = 600  # six recalls of 100 %


def report_page(outcome: Outcome, run: RunFolder, beside: Sequence[RunFolder] = ()) -> str:
    """One HTML page that needs no other file and no network.

    Args:
        outcome: the finished run.
        run: its folder; history, configuration and environment are read from it.
        beside: finished runs to compare it with, once it has finished itself.
    Returns: the page as text, everything from data or configuration escaped.
    Raises: FileNotFoundError, ValueError naming the file of a run beside it.
    """
    gallery = Gallery(outcome)
    compared = beside_section(read_finished([run, *beside])) if beside else ""
    name = run.path.name
    return page_html(
        f"{name}: retrieval report",
        f"{_header(escape(name), outcome)}<main>{_metrics_table(outcome)}"
        f"{compared}{curves_section(read_history(run.history), outcome)}"
        f"{mined_section(run, outcome.dev)}{_examples(gallery, outcome)}"
        f"{settings_section(run)}</main>"
        "<footer>Written by goal_kernels. Recall at K is the share of queries with a right answer "
        "among the first K; an image counts as found by any of its captions. rsum adds the six "
        "recalls (at most 600).</footer>",
    )


def _header(name: str, outcome: Outcome) -> str:
    metrics, chance, oracle = _rows(outcome)
    recall = metrics["t2i"]["R@1"]
    images = len(outcome.evaluation.image_embeddings)
    best = f", oracle {oracle['t2i']['R@1']:.1f} %" if oracle else ""
    minutes, seconds = divmod(round(outcome.seconds), 60)
    facts = [
        f"objective {outcome.objective.name}",
        f"data {outcome.split.folder.name}, {outcome.where}",
        f"{outcome.epochs} epochs" if outcome.epochs else "evaluation only",
        f"{minutes} min {seconds} s" if minutes else f"{seconds} s",
        f"seed {outcome.seed}",
    ]
    tiles = [
        _tile(f"R@1, {label}", "%", 100, [m and m[key]["R@1"] for m in (metrics, chance, oracle)])
        for key, label in DIRECTIONS.items()
    ]
    tiles.append(_tile("rsum", "", MOST_RSUM, [m and m["rsum"] for m in (metrics, chance, oracle)]))
    return (
        f'<header><p class="kicker">{escape(" · ".join(facts))}</p><h1>{name}</h1>'
        f'<p class="lead">A caption finds its own image first in <strong>{recall:.1f} %</strong> '
        f"of cases, among {images:,} images of the {escape(outcome.where)} "
        f"(chance {chance['t2i']['R@1']:.2g} %{best}).</p>"
        f'<ul class="tiles">{"".join(tiles)}</ul></header>'
    )


def _tile(label: str, unit: str, most: float, values: list[Any]) -> str:
    """A number on the scale from 0 to `most`; values: ours, chance, oracle or None."""
    value, chance, oracle = values
    known, tick = f"chance {chance:.2g}", ""
    if oracle is not None:
        known += f" · oracle {oracle:.1f}"
        tick = f'<i class="oracle" style="left:{100 * oracle / most:.1f}%"></i>'
    return (
        f'<li class="tile"><span>{label}</span><b>{value:.1f}{unit and " " + unit}</b>'
        f'<div class="scale" aria-hidden="true">'
        f'<i class="reached" style="width:{100 * value / most:.1f}%"></i>{tick}</div>'
        f"<span>{known}</span></li>"
    )


def _rows(outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """The records of this run, of chance and of the oracle."""
    return outcome.evaluation.metrics, outcome.evaluation.chance, outcome.oracle


def _metrics_table(outcome: Outcome) -> str:
    """One row a metric, one column a ranker: narrow enough for a phone."""
    metrics, chance, oracle = _rows(outcome)
    last = outcome.checkpoints.get("last") if outcome.selected == "best" else None
    rankers = {
        "this run" if last is None else "best": metrics,
        "last": None if last is None else last.metrics,
        **{n: found for n, found in outcome.evaluation.rankings.items() if found is not metrics},
        "chance": chance,
        "ridge": outcome.ridge,
        "oracle": oracle,
    }
    known = {name: record for name, record in rankers.items() if record is not None}
    columns = [_cells(record) for record in known.values()]
    names = [f"{label}, {r}" for label in DIRECTIONS.values() for r in RECALLS] + ["rsum"]
    rows = [
        [name, *number_cells(cells)]
        for name, cells in zip(names, zip(*columns, strict=True), strict=True)
    ]
    rows += _sibling_rows(outcome.evaluation.siblings, list(known))
    note = "No oracle is recorded for this split."
    if oracle is not None:
        note = (
            "The oracle knows exactly which captions are true of which images and nothing else. "
            "Captions are partial and often true of several images, so it stays below 100 %."
        )
    ranks = ", ".join(
        f"{label} {metrics[key]['median_rank']:g} (mean {metrics[key]['mean_rank']:.1f})"
        for key, label in DIRECTIONS.items()
    )
    return (
        f"<section><h2>Retrieval: {escape(outcome.where)}</h2>"
        f"{table_html(['recall in %', *known], rows, kind='results')}{_checkpoints(outcome)}"
        f'<p class="note">Median rank: {ranks}. {note}</p></section>'
    )


def _sibling_rows(
    siblings: Mapping[str, Mapping[str, float]], columns: Sequence[str]
) -> list[list[str]]:
    """R@1 among siblings by direction, blank for rankers that it is not known of."""
    if not siblings:
        return []
    own = list(siblings)[-2]  # the ranking that the metrics are of, before "chance"
    known = {**siblings, "this run": siblings[own], "best": siblings[own]}
    return [
        [
            f"{label}, R@1 among siblings",
            *number_cells(known.get(n, {}).get(d, math.nan) for n in columns),
        ]
        for d, label in DIRECTIONS.items()
    ]


def _checkpoints(outcome: Outcome) -> str:
    """Which checkpoints the columns are of."""
    meant = {"best": "the highest rsum on dev", "last": "the end of the training"}
    sentences = [
        f"{name.capitalize()}: {meant[name]}, epoch {result.epoch}, step {result.step:,}"
        + (f", dev rsum {result.dev_rsum:.1f}." if result.dev_rsum is not None else ".")
        for name, result in sorted(outcome.checkpoints.items())
    ]
    return f'<p class="note">{" ".join(sentences)}</p>' if sentences else ""


def _cells(metrics: Mapping[str, Any]) -> list[float]:
    """The six recalls and rsum, in the order of the tables."""
    return [metrics[k][r] for k in DIRECTIONS for r in RECALLS] + [metrics["rsum"]]


def _examples(gallery: Gallery, outcome: Outcome) -> str:
    known = (
        "“Also true” marks an image that the caption describes correctly although it was written "
        "for another one; the metrics above count it as a miss."
        if outcome.split.truth is not None
        else "Whether a caption also describes another image is not known for this dataset."
    )
    return (
        "<section><h2>Examples</h2><p>Queries drawn at random from the evaluated split, with the "
        f"similarity of each result. {known}</p><h3>Captions and the images they find</h3>"
        f"{gallery.text_queries()}<h3>Images and the captions they find</h3>"
        f"{gallery.image_queries()}</section>"
    )
