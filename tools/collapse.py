"""Where cold starts end and what learns fastest: the generated part of docs/collapse.md.

`python -m tools.collapse` writes its tables and pictures from docs/study/results,
docs/collapse/results and docs/collapse/anchors.json. The last file comes from
`python -m tools.collapse FILE.npz`, embeddings that `goal-kernels eval --save-embeddings` wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.report import update_readme
from goal_kernels import Objective, builtin_objectives, ops
from goal_kernels.analysis import Analysis, analyze
from goal_kernels.analysis.numerics import axis
from goal_kernels.data.files import read_json, write_text
from goal_kernels.terminal import markdown_table
from goal_kernels.training.compare.picture import COLOURS, INK, drawing
from goal_kernels.training.density import read_density
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.study.results import CellResult, read_result

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "study" / "results", DOCS / "collapse" / "results"
PAGE, PICTURE = DOCS / "collapse.md", DOCS / "collapse" / "plateaus.png"
DENSITY = DOCS / "collapse" / "pairs.json"  # of a warm-up, as `goal-kernels fit` records it
ANCHORS, SCATTER = DOCS / "collapse" / "anchors.json", DOCS / "collapse" / "anchors.png"
BATCH, BATCHES = 64, 40  # of images with one caption each
NAMES = "mining/mean_positive", "mining/mean_hardest_negative"
RELATIVE = {"none": (0.0, 0.0), "linear": (0.0, 0.0), "exponential": (1.0, 1.0)}
"""R+ and R- of a batch without spread: means of differences that are 0, of exponentials of 0."""


class ColdStart(NamedTuple):
    """A run without warm-up: what its landscape predicts and what was logged.

    steps, positives, negatives: logged. predicted: the plateau that the drift leads to from where
    the run was first seen, NaN if none.
    """

    cell: CellResult
    landscape: Analysis
    steps: list[int]
    positives: list[float]
    negatives: list[float]

    @property
    def predicted(self) -> float:
        """NaN where the drift leads nowhere."""
        p, n = self.positives[0], self.negatives[0]
        rises = bool(self.landscape.drift(p, n) > 0)
        ahead = [s for s in self.landscape.plateaus() if (s > p) == rises]
        return min(ahead, key=lambda s: abs(s - p), default=float("nan"))

    @property
    def group(self) -> str:
        """The name of its group, without what the main study calls all of them."""
        return self.cell.header["group"].removeprefix("cold start")

    @property
    def negatives_kind(self) -> str:
        """The option `model.negatives`."""
        return self.cell.header["config"]["model"].get("negatives", "hardest")

    @property
    def rsum(self) -> float:
        """On the test split."""
        return float(self.cell.result["metrics"]["rsum"])


def cold_starts() -> list[ColdStart]:
    """All of both studies, by name of file."""
    found = []
    for path in sorted(path for folder in RESULTS for path in folder.glob("*.jsonl")):
        cell = read_result(path)
        model = cell.header["config"]["model"]
        if model["warmup_steps"] or model["objective"] == "sum_of_hinges":
            continue
        objective = make_objective(model["objective"], model.get("objective_parameters"))
        landscape = analyze(objective, relative=RELATIVE[objective.pair_element.relative])
        (steps, p), (_, n) = (zip(*cell.history.by_step(name), strict=True) for name in NAMES)
        found.append(ColdStart(cell, landscape, list(steps), list(p), list(n)))
    return found


def _range(values: Iterable[float], digits: int = 3) -> str:
    low, high = min(values := list(values)), max(values)
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _name(run: ColdStart) -> str:
    pair = run.landscape.name.partition("/")[2]
    return f"{pair}, λ = {run.group.removeprefix('lam ')}" if "lam" in run.group else pair


def plateau_table(runs: list[ColdStart]) -> str:
    """Of hardest negatives, by pair weight and plateau: where the runs began and ended."""
    groups: dict[tuple[str, str], list[ColdStart]] = {}
    for run in runs:
        groups.setdefault((_name(run), f"{run.predicted:.2f}"), []).append(run)
    heads = ["pair weight", "runs", "positives, first logged", "predicted"]
    heads += ["at the end", "negatives"]
    rows = []
    for (name, predicted), members in sorted(groups.items()):
        cells = [
            name,
            str(len(members)),
            _range((run.positives[0] for run in members), 2),
            predicted,
            _range(run.positives[-1] for run in members),
            _range(run.negatives[-1] for run in members),
        ]
        rows.append(cells)
    return markdown_table(heads, rows)


def negatives_table(runs: list[ColdStart]) -> str:
    """By kind of negatives: the violation that decides, and whether the runs learnt."""
    heads = ["negatives", "predicted", "runs", "n − p, first logged", "n − p, at the end", "rsum"]
    rows = []
    for kind in sorted({run.negatives_kind for run in runs}):
        members = [run for run in runs if run.negatives_kind == kind]
        first, last = ([run.negatives[k] - run.positives[k] for run in members] for k in (0, -1))
        cells = [
            f"`{kind}`",
            "stays" if min(first) > 0 else "leaves" if max(first) < 0 else "open",
            str(len(members)),
            _range(first),
            _range(last),
            _range((run.rsum for run in members), 1),
        ]
        rows.append(cells)
    return markdown_table(heads, rows, 2)


def draw(path: Path, runs: list[ColdStart]) -> None:
    """Drifts along p = n, and beside them the positives of the runs over their steps."""
    p = torch.linspace(-1, 0.98, 300, dtype=torch.float64)
    names = sorted({_name(run) for run in runs})
    with drawing(path, 1, 2, 10.0, 3.6) as grid:
        left, right = grid.flat
        for name, colour in zip(names, COLOURS, strict=False):
            members = [run for run in runs if _name(run) == name]
            plain = next(
                (r for r in members if r.landscape.name.startswith("constant/")), members[0]
            )
            left.plot(p, plain.landscape.drift(p, p + 0.02), color=colour, label=name)
            for run in members:
                right.plot(run.steps, run.positives, color=colour, linewidth=1.2)
                right.axhline(run.predicted, color=colour, linewidth=0.8, linestyle=":")
        left.axhline(0, color=INK, linewidth=0.8)
        left.set(title="Drift of a collapsed batch", xlabel="p, with n = p + 0.02", ylabel="drift")
        left.legend()
        right.set(
            title="Positives of cold starts; dotted: predicted",
            xlabel="optimiser step",
            xlim=(0, 150),
            ylim=(-1.02, 1.02),
        )
        for axes in (left, right):
            axes.grid()


def effective_share(objective: Objective, image: Tensor, text: Tensor) -> float:
    """(sum w)^2 / (2 B sum w^2) over the anchors of a batch, w the mean of pull and push."""
    weights = []
    for direction, place in (("i2t", 4), ("t2i", 5)):
        options = direction, False, "highest"
        vectors = ops.forward("reference", image, text, (None, None), objective, options).vectors
        weights.append((vectors[3] + vectors[place]) / 2)
    w = torch.cat(weights)
    return (w.sum().square() / w.square().sum() / len(w)).item()


def measure_anchors(path: Path) -> None:
    """Write `ANCHORS` from the embeddings of a model at the end of its warm-up."""
    with np.load(path) as saved:
        image, text = (
            normalize(torch.from_numpy(saved[f"{side}_embeddings"]).double(), dim=1)
            for side in ("image", "text")
        )
    generator = torch.Generator().manual_seed(0)
    captions = len(text) // len(image)
    batches = []
    for _ in range(BATCHES):
        chosen = torch.randperm(len(image), generator=generator)[:BATCH]
        caption = torch.randint(0, captions, (BATCH,), generator=generator)
        batches.append((image[chosen], text[chosen * captions + caption]))
    shares = {
        objective.name: sum(effective_share(objective, *pair) for pair in batches) / BATCHES
        for objective in builtin_objectives()
    }
    write_text(ANCHORS, json.dumps({"batch": BATCH, "batches": BATCHES, "shares": shares}) + "\n")


def rsums() -> dict[str, float]:
    """Mean rsum over the seeds of every objective of the main study after the warm-up."""
    found: dict[str, list[float]] = {}
    for path in RESULTS[0].glob("*.jsonl"):
        cell = read_result(path)
        if cell.header["group"] == "after warm-up":
            found.setdefault(cell.header["label"], []).append(cell.result["metrics"]["rsum"])
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def from_histograms() -> str:
    """Correlation with the rsums of shares from landscapes and recorded (p, n), by epoch."""
    found, correlations = rsums(), []
    plain = [o for o in builtin_objectives() if o.pair_element.relative == "none"]
    for counts in read_density(DENSITY).values():
        places = axis(len(counts))
        p, n = torch.meshgrid(places, places, indexing="ij")
        shares = []
        for objective in plain:
            w = sum(analyze(objective).weights(p, n)) / 2
            total = (counts * w).sum().square()
            shares.append((total / (counts * w.square()).sum() / counts.sum()).item())
        correlations.append(np.corrcoef(shares, [found[o.name] for o in plain])[0, 1])
    return (
        f"From landscapes and the recorded (p, n) alone, of the {len(plain)} objectives without "
        "relative similarity, by epoch of the warm-up: "
        + ", ".join(f"{value:.2f}" for value in correlations)
        + "."
    )


def anchors_table() -> str:
    """Shares of the anchors that count beside the rsums, and their correlation."""
    shares, found = read_json(ANCHORS)["shares"], rsums()
    names = sorted(found, key=lambda name: -shares[name])
    pairs = np.array([[shares[name], found[name]] for name in names])
    linear = np.corrcoef(pairs.T)[0, 1]
    ranked = np.corrcoef(pairs.argsort(axis=0).argsort(axis=0).T)[0, 1]
    lines = [
        f"Correlation over the {len(names)} objectives: {linear:.2f}, of ranks {ranked:.2f}.",
        from_histograms(),
        "",
    ]
    rows = [[name, f"{shares[name]:.2f}", f"{found[name]:.1f}"] for name in names]
    lines.append(markdown_table(["objective", "share of the anchors", "rsum"], rows))
    return "\n".join(lines)


def draw_anchors(path: Path) -> None:
    """Shares against rsums, a point an objective."""
    shares, found = read_json(ANCHORS)["shares"], rsums()
    with drawing(path, 1, 1, 7.0, 4.2) as grid:
        axes = grid[0, 0]
        kinds = sorted({name.partition("/")[2] for name in found})
        for kind, colour in zip(kinds, COLOURS, strict=False):
            mine = np.array([[shares[n], found[n]] for n in found if n.partition("/")[2] == kind])
            axes.scatter(*mine.T, color=colour, label=kind)
        axes.set(xlabel="share of the anchors that count", ylabel="rsum, mean of five seeds")
        axes.legend(title="pair weight")
        axes.grid()


def generated(runs: list[ColdStart]) -> dict[str, str]:
    """The generated parts of the page by the names of their places."""
    own = [run for run in runs if run.cell.header["study"] == "collapse"]
    picture = "![Drifts along p = n, and the positives of cold starts](collapse/plateaus.png)"
    return {
        "plateaus": f"{plateau_table(_hardest(runs))}\n\n{picture}",
        "negatives": negatives_table([run for run in own if "lam" not in run.group]),
        "anchors": anchors_table(),
    }


def _hardest(runs: list[ColdStart]) -> list[ColdStart]:
    return [run for run in runs if run.negatives_kind == "hardest"]


def main() -> None:
    """Write the generated parts of the page, and the pictures."""
    if len(sys.argv) > 1:
        measure_anchors(Path(sys.argv[1]))
    runs = cold_starts()
    draw(PICTURE, _hardest(runs))
    draw_anchors(SCATTER)
    for name, part in generated(runs).items():
        update_readme(PAGE, part, name)


if __name__ == "__main__":
    main()
