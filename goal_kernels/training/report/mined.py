"""What was mined: hardest negatives early and late, and where the anchors were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from goal_kernels.data.split import Split
from goal_kernels.training.density import read_density
from goal_kernels.training.hardest_examples import read_hardest
from goal_kernels.training.report.charts import Chart, Series, chart_html
from goal_kernels.training.report.gallery import Exhibit
from goal_kernels.training.run_folder import RunFolder

SIDE = 240  # user units of a map
MARGIN = 34


def mined_section(run: RunFolder, dev: Split | None) -> str:
    """Examples and maps of a run; "" for one that recorded neither (an evaluation)."""
    examples = "" if dev is None else _examples(read_hardest(run.hardest), Exhibit(dev))
    maps = _maps(read_density(run.pairs)) if run.pairs.is_file() else ""
    if not examples and not maps:
        return ""
    return f"<section><h2>What was mined</h2>{maps}{examples}</section>"


def _moments(epochs: Sequence[Any]) -> list[Any]:
    """The first of some epochs, the middle one and the last."""
    return [epochs[i] for i in sorted({0, len(epochs) // 2, len(epochs) - 1})] if epochs else []


def _examples(epochs: list[dict[str, Any]], exhibit: Exhibit) -> str:
    """Captions and images of dev, drawn at random, with their hardest negatives side by side."""
    moments = _moments(epochs)
    if not moments or not moments[-1]["captions"]:
        return ""
    captions = "".join(
        _caption([(moment["epoch"], moment["captions"][i]) for moment in moments], exhibit)
        for i in range(len(moments[-1]["captions"]))
    )
    images = "".join(
        _image([(moment["epoch"], moment["images"][i]) for moment in moments], exhibit)
        for i in range(len(moments[-1]["images"]))
    )
    return (
        "<h3>Hardest negatives, early and late</h3><p>The same captions and images of the dev "
        "split after different epochs, drawn at random, each with what it was confused with most "
        "in the whole split. p: similarity to its own; n: to the hardest negative. Learning puts p "
        f"above n.</p>{captions}{images}"
    )


def _caption(found: list[tuple[int, dict[str, Any]]], exhibit: Exhibit) -> str:
    """A caption: its image, then the hardest negative of each moment."""
    caption = found[0][1]["caption"]
    owner = int(exhibit.split.image_of_caption[caption])
    cells = "".join(
        exhibit.hit(row["negative"], row["score"], exhibit.verdict(caption, row["negative"]), told)
        for row, told in _told(found)
    )
    return (
        f'<article class="query"><p class="asked">“{exhibit.said(caption)}”</p><ol class="hits">'
        f'<li class="match">{exhibit.picture(owner)}<span class="score">its image</span></li>'
        f"{cells}</ol></article>"
    )


def _image(found: list[tuple[int, dict[str, Any]]], exhibit: Exhibit) -> str:
    """An image and the hardest caption of each moment."""
    image = found[0][1]["image"]
    rows = "".join(
        exhibit.sentence(row["negative"], row["score"], image, told) for row, told in _told(found)
    )
    return (
        f'<article class="query"><div class="sentences"><div>{exhibit.picture(image)}</div>'
        f'<ol class="ranked">{rows}</ol></div></article>'
    )


def _told(found: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[dict[str, Any], str]]:
    """The row of each moment, and what to say before its score."""
    return ((row, f"epoch {epoch}<br>p {row['positive']:.2f} · n ") for epoch, row in found)


def _maps(density: dict[int, Tensor]) -> str:
    """Maps of the first, the middle and the last epoch, and the share of anchors in the wrong."""
    if not density:
        return ""
    figures = "".join(_map(epoch, counts) for epoch, counts in _moments(list(density.items())))
    wrong = Chart(
        "Anchors whose hardest negative is ahead",
        "epoch",
        "percent of the anchors",
        [Series("n above p", [(float(e), 100 * _wrong(counts)) for e, counts in density.items()])],
        y_range=(0.0, 100.0),
        note="Of training batches, both directions. What is left are the triplets that still "
        "teach.",
    )
    return (
        "<h3>Where the anchors were</h3><p>Every anchor of an epoch by its similarity to the "
        "positive, p, and to the hardest negative of its batch, n. Below the line p is ahead. A "
        "collapse shows as one spot on the line.</p>"
        f'<div class="maps">{figures}</div><div class="charts">{chart_html(wrong)}</div>'
    )


def _wrong(counts: Tensor) -> float:
    """Share of counts [BINS, BINS] with n above p; half of those in one bin."""
    above = counts.triu(1).sum() + counts.diagonal().sum() / 2
    return float(above / counts.sum().clamp(min=1))


def _map(epoch: int, counts: Tensor) -> str:
    """Counts [BINS, BINS] as a map: p to the right, n upwards, both from -1 to 1."""
    cell, top = SIDE / len(counts), counts.max().clamp(min=1)
    shades = (counts / top).sqrt()
    squares = "".join(
        f'<rect x="{MARGIN + p * cell:.1f}" y="{SIDE - (n + 1) * cell:.1f}" width="{cell:.1f}" '
        f'height="{cell:.1f}" opacity="{max(0.08, shades[p, n]):.2f}"/>'
        for p, n in torch.nonzero(counts).tolist()
    )
    percent = f"{100 * _wrong(counts):.0f} %"
    heading = f"Epoch {epoch}: n above p for {percent}"
    return (
        f"<figure><figcaption>{escape(heading)}</figcaption>"
        f'<svg viewBox="0 0 {SIDE + MARGIN + 4} {SIDE + MARGIN}" role="img" '
        f'aria-label="{escape(heading)}"><rect class="band" x="{MARGIN}" y="0" width="{SIDE}" '
        f'height="{SIDE}"/><g class="map">{squares}</g>'
        f'<line class="grid" x1="{MARGIN}" y1="{SIDE}" x2="{MARGIN + SIDE}" y2="0"/>'
        f'<text x="{MARGIN - 4}" y="{SIDE}" text-anchor="end">-1</text>'
        f'<text x="{MARGIN - 4}" y="11" text-anchor="end">1</text>'
        f'<text x="{MARGIN - 8}" y="{SIDE / 2}" text-anchor="end">n</text>'
        f'<text x="{MARGIN}" y="{SIDE + 16}">-1</text>'
        f'<text x="{MARGIN + SIDE / 2}" y="{SIDE + 16}" text-anchor="middle">p</text>'
        f'<text x="{MARGIN + SIDE}" y="{SIDE + 16}" text-anchor="end">1</text></svg></figure>'
    )
