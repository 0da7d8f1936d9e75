"""Landscapes of several losses: a page, a sheet that shows all beside each other, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from goal_kernels.analysis.drawing import (
    ANCHORS,
    CELLS,
    HEIGHT,
    LEFT,
    MAP_STYLE,
    WIDTH,
    field,
    figure,
    frame,
    full_colour,
    heat,
    trajectory,
)
from goal_kernels.analysis.landscape import Analysis
from goal_kernels.analysis.numerics import axis, lattice
from goal_kernels.terminal import Table
from goal_kernels.training.density import read_density
from goal_kernels.training.report.style import STYLE, page_html, table_html

COLUMNS = 5  # of the sheet
HEADING = 24  # height of a title on the sheet
SHOWN_EPOCHS = 6
POINTS = {"begun": (0.0, 0.0), "learnt": (0.9, 0.1), "collapsed": (1.0, 1.0)}
"""Places whose weights the table shows: a name and (p, n)."""

READING = (
    "p is the similarity of an anchor to its positive, n to a negative. Blue is above zero, orange "
    "below. Arrows show where a step of descent moves (p, n) if nothing else changed them, p by "
    "the pull and n by minus the push; the thicker, the stronger; a dot where nothing moves. On "
    "the thick line pull and push are equal, on the dashed one p = n. Good is below on the right."
)
CAPTION = (
    "p, n: similarity of an anchor to its positive, to a negative. Arrows: where a step of "
    "descent moves them; on the thick line pull = push. *: not the gradient of any function."
)


def summary_table(losses: Sequence[Analysis]) -> Table:
    """In numbers: whether L exists, where a collapsed batch rests, pull and push at `POINTS`."""
    columns = ["loss", "potential", "pull = push", "collapses to"]
    columns += [f"{name} ({p:g}, {n:g})" for name, (p, n) in POINTS.items()]
    rows = []
    for loss in losses:
        cells = [
            "{:.3g} / {:.3g}".format(*(w.item() for w in loss.weights(p, n)))
            for p, n in POINTS.values()
        ]
        rests = " or ".join(f"{place:.2f}" for place in loss.plateaus()) or "nowhere"
        known = "yes" if loss.integrable else "none"
        rows.append([loss.name, known, _balance(loss), rests, *cells])
    return Table("pull / push at (p, n)", columns, rows)


def _balance(loss: Analysis) -> str:
    if loss.balanced:
        return "everywhere"
    return "on a line" if len(loss.equilibrium(40)) else "nowhere"


def landscapes_html(losses: Sequence[Analysis], run: Path | None = None) -> str:
    """One HTML page that needs no other file and no network.

    Args:
        losses: in the order to show.
        run: folder of a run, whose anchors are drawn over the first of them.
    Raises: ValueError when the run recorded none.
    """
    sections, density = [], {}
    if run is not None:
        path = run / "pairs.json"
        density = read_density(path) if path.is_file() else {}
        if not density:
            raise ValueError(
                f"--run: expected at least one epoch in {path}, which `goal-kernels fit` writes, "
                "found none; name the objective instead to see the landscape alone"
            )
    if len(losses) > 1:
        maps = "".join(figure(field(loss), loss.name, _short(loss)) for loss in losses)
        sections.append(f'<section><h2>Side by side</h2><div class="maps">{maps}</div></section>')
    if run is not None:
        sections.append(_run_section(losses[0], run.name, density))
    sections += [_section(loss) for loss in losses]
    names = ", ".join(loss.name for loss in losses)
    table = summary_table(losses)
    return page_html(
        f"Landscapes: {names}",
        f'<header><p class="kicker">{len(losses)} losses</p><h1>What they do to the gradients</h1>'
        f"<p>{escape(READING)}</p></header><main><section><h2>{escape(table.title)}</h2>"
        f"{table_html(table.columns, table.rows, label=table.title)}</section>{''.join(sections)}"
        "</main><footer>Written by goal_kernels.</footer>",
        STYLE + MAP_STYLE,
    )


def _short(loss: Analysis) -> str:
    """What is to be said about the field of a loss in few words."""
    exists = "a potential exists" if loss.integrable else "no potential"
    return f"{exists}; pull = push {_balance(loss)}"


def _section(loss: Analysis) -> str:
    """Equation, notes and the four maps of a loss."""
    p, n = lattice(CELLS)
    pull, push = (side.view(CELLS, CELLS) for side in loss.weights(p, n))
    defect = loss.defect(p, n).view(CELLS, CELLS)
    full = full_colour(torch.cat([pull, push]))
    bent = full_colour(defect)
    none = not (defect.nan_to_num(0.0).abs() > 1e-6).any()
    said = "none" if none else f"full colour at {bent:.3g}"
    if none and not loss.integrable:
        said = "only where the weights jump"
    maps = (
        figure(heat(pull, full), "Pull", f"-dL/dp; full colour at {full:.3g}")
        + figure(heat(push, full), "Push", f"dL/dn; full colour at {full:.3g}")
        + figure(field(loss), "Field", _short(loss))
        + figure("" if none else heat(defect, bent), "Defect", f"d pull/dn + d push/dp: {said}")
    )
    corners = "; ".join(
        f"({c.p:+.0f}, {c.n:+.0f}): {c.pull:.3g} / {c.push:.3g}" for c in loss.limits()
    )
    notes = "".join(f"<p>{escape(note[0].upper() + note[1:])}.</p>" for note in loss.notes)
    equation = f"<p><code>{escape(loss.equation)}</code></p>" if loss.equation else ""
    return (
        f"<section><h2>{escape(loss.name)}</h2>{equation}{notes}"
        f'<div class="maps">{maps}</div>'
        f'<p class="note">Limits, pull / push: {corners}.</p></section>'
    )


def mean_path(density: Mapping[int, Tensor]) -> list[list[float]]:
    """The mean (p, n) of the anchors of each epoch that has any."""
    means = []
    for counts in density.values():
        places = axis(len(counts))
        if counts.sum() > 0:
            share = counts / counts.sum()
            means.append([(share.sum(dim=1) @ places).item(), (share.sum(dim=0) @ places).item()])
    return means


def _run_section(loss: Analysis, name: str, density: Mapping[int, Tensor]) -> str:
    """The anchors of some epochs of a run over the field of its objective."""
    path, epochs = mean_path(density), list(density)
    last = len(epochs) - 1
    chosen = sorted({epochs[round(last * k / (SHOWN_EPOCHS - 1))] for k in range(SHOWN_EPOCHS)})
    maps = ""
    for epoch in chosen:
        counts = density[epoch]
        spots = heat(counts, full_colour(counts[counts > 0]), 1.0, ANCHORS)
        maps += figure(
            field(loss, spots + trajectory(path)),
            f"Epoch {epoch}",
            f"{int(counts.sum()):,} anchors",
        )
    return (
        f"<section><h2>Anchors of the run {escape(name)}</h2><p>Green: where the anchors of the "
        f"training batches were, over the field of {escape(loss.name)}; both directions, the "
        "warm-up included. The line is the way of their mean over all epochs, from the ring to the "
        f'dot.</p><div class="maps">{maps}</div></section>'
    )


def sheet_svg(losses: Sequence[Analysis]) -> str:
    """The fields of all losses beside each other, as one SVG file with colours of its own."""
    rows = -(-len(losses) // COLUMNS)
    step = HEIGHT + HEADING
    width, height = COLUMNS * WIDTH + 12, rows * step + 34
    colours = STYLE[: STYLE.index("*{box-sizing")]
    style = (
        f"{colours}{MAP_STYLE}svg{{font-family:system-ui,sans-serif}}text{{fill:var(--soft);"
        "font-size:12px}text.name{fill:var(--ink);font-size:15px;font-weight:600}"
    )
    maps = []
    for place, loss in enumerate(losses):
        row, column = divmod(place, COLUMNS)
        heading = loss.name + ("" if loss.integrable else " *")
        maps.append(
            f'<g transform="translate({column * WIDTH},{row * step})">'
            f'<text class="name" x="{LEFT}" y="19">{escape(heading)}</text>'
            f'<g transform="translate(0,{HEADING})">{frame(field(loss), loss.name)}</g></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style><rect width="{width}" height="{height}" '
        f'fill="var(--paper)"/>{"".join(maps)}'
        f'<text x="{LEFT}" y="{height - 12}">{CAPTION}</text></svg>\n'
    )
