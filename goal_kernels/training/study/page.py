"""The results page of a study: Markdown and pictures, all from the result files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from goal_kernels.data.files import write_text
from goal_kernels.terminal import markdown_table
from goal_kernels.training.compare.differences import batch_said, warnings_about
from goal_kernels.training.compare.runs import run_of_cell
from goal_kernels.training.compare.statistics import compare_values, spread_text
from goal_kernels.training.compare.table import make_table, whole_table
from goal_kernels.training.study.findings import findings
from goal_kernels.training.study.gathered import MARGINAL, Gathered, Grid, grid_of, plain_label
from goal_kernels.training.study.plots import draw_all
from goal_kernels.training.study.ranked import ranked_sections
from goal_kernels.training.study.results import CellResult
from goal_kernels.training.study.tuned import tuned_sections

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"


def write_page(gathered: Gathered, folder: Path, page: Path) -> None:
    """Draw the pictures into `folder` and write the page.

    A page that is there and holds the lines `BEGIN` and `END` keeps its text around them.

    Args:
        gathered: the study.
        folder: of the pictures.
        page: file of the page.
    """
    pictures = draw_all(gathered, folder)
    links = {f"{os.path.relpath(folder / file, page.parent)}": t for file, t in pictures.items()}
    block = f"{BEGIN}\n{page_text(gathered, links)}{END}\n"
    if page.is_file():
        before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            write_text(page, before + block + after.removeprefix("\n"))
            return
    write_text(page, f"# {gathered.recipe.title or gathered.recipe.name}\n\n{block}")


def page_text(gathered: Gathered, pictures: Mapping[str, str]) -> str:
    """The generated part of the page.

    Args:
        gathered: the study.
        pictures: links to pictures and what they show.
    """
    sections = [
        _counts(gathered),
        "### How it was run\n\n" + _settings(gathered),
        "### Results\n\n" + _main_table(gathered),
        _grid_section(grid_of(gathered.main)),
        _mined_section(gathered),
        "### What the numbers say\n\n" + "".join(f"- {s}\n" for s in findings(gathered)),
        *(_other_section(gathered, name) for name in gathered.others),
        *tuned_sections(gathered),
        *ranked_sections(gathered),
        "### Pictures\n\n" + "\n".join(f"![{text}]({link})\n" for link, text in pictures.items()),
    ]
    return "\n".join(section for section in sections if section)


def _counts(gathered: Gathered) -> str:
    """How much of the study is done, where it is not all."""
    done, total = len(gathered.results), len(gathered.cells)
    return "" if done == total else f"**{done} of {total} cells are finished.**\n"


def _settings(gathered: Gathered) -> str:
    """A table of what the result files record, and warnings where they differ."""
    results = gathered.results
    config = _of_main(gathered).header["config"]
    environments = [result.header["environment"] for result in results]
    cpu = sum(result.result["cpu_seconds"] for result in results)
    dates = sorted(environment["started"][:10] for environment in environments)
    rows = {
        "command": f"`goal-kernels study --config {gathered.recipe.name}`",
        "data": _each(result.header["dataset"]["name"] for result in results)
        + f", {_each(result.result['split'] for result in results)} split, last weights of a run",
        "cells": f"{len(results)}, seeds {_numbers(result.header['seed'] for result in results)}",
        "budget": f"{_each(str(result.result['steps']) for result in results)} steps of "
        f"{batch_said(config['data'])}; {_warmups(gathered)}",
        "model": _entries(
            config["model"],
            {"objective", "warmup_steps", "lr", "lr_drop_at"}
            | ({"objective_parameters"} if gathered.recipe.tuning else set()),
        ),
        "optimiser": f"AdamW, learning rate {config['model'].get('lr')}, a tenth of it from "
        f"{100 * config['model'].get('lr_drop_at', 0.6):.0f} % of the steps on, gradients clipped",
        "machine": _each(environment["processor"] for environment in environments)
        + f", {config['run'].get('threads')} thread a run, {cpu / 60:.0f} minutes of CPU time "
        "(warm-ups not counted)",
        "versions": _each(_versions(environment) for environment in environments),
        "commit": _each(run_of_cell(result).commit or "unknown" for result in results),
        "date": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
    }
    warnings = warnings_about(gathered.main)
    table = markdown_table(["", ""], rows.items(), 2)
    return f"{table}\n" + "".join(f"\n**Warning:** {warning}.\n" for warning in warnings)


def _of_main(gathered: Gathered) -> CellResult:
    """A result of the first group that has one."""
    order = [group.name for group in gathered.recipe.groups]
    return min(gathered.results, key=lambda result: order.index(result.header["group"]))


def _warmups(gathered: Gathered) -> str:
    """Steps on the sum of hinges, group by group."""
    steps = {
        result.header["group"]: result.header["config"]["model"].get("warmup_steps", 0)
        for result in gathered.results
    }
    return "of them on all negatives: " + ", ".join(f"{n} ({g})" for g, n in steps.items())


def _entries(config: Mapping[str, Any], left_out: Iterable[str]) -> str:
    """Names and values in one line."""
    parts = []
    for name, value in config.items():
        if name in left_out:
            continue
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {v}" for k, v in value.items())
            parts.append(f"{name} ({inner})")
        else:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _versions(environment: Mapping[str, Any]) -> str:
    known = {name: v for name, v in environment["packages"].items() if v is not None}
    return ", ".join([f"Python {environment['python']}", *(f"{n} {v}" for n, v in known.items())])


def _each(values: Iterable[str]) -> str:
    """The distinct values, the most frequent first."""
    return "; ".join(value for value, _ in Counter(values).most_common())


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _main_table(gathered: Gathered) -> str:
    """The ranking, and how to read it."""
    table = make_table(gathered.main, gathered.baseline)
    most = max(len(contestant.runs) for contestant in gathered.main)
    seeds = "1 seed" if most == 1 else f"{most} seeds"
    return (
        f"Percent, mean ± standard deviation over seeds; rsum is the sum of the six recalls. Tests "
        f"are paired by seed, against `{table.baseline}`, and corrected by Holm for "
        f"{len(gathered.main) - 1} comparisons. With {seeds} the exact test cannot give less "
        f"than {2 / 2**most:.4g} before the correction.\n\n{whole_table(table).markdown()}"
    )


def _grid_section(grid: Grid | None) -> str:
    """Mean rsum of every triplet with every pair weight."""
    if grid is None:
        return ""

    pairs = [*grid.pairs, MARGINAL]
    rows = [
        [triplet, *(spread_text(grid.values[triplet, pair].values()) for pair in pairs)]
        for triplet in (*grid.triplets, MARGINAL)
    ]
    head = "### Triplet weights (rows) and pair weights (columns)\n\n"
    return head + markdown_table(["rsum", *pairs], rows) + "\n"


def _mined_section(gathered: Gathered) -> str:
    """How many of the negatives that the trained models mine are true, where a truth is known."""
    mined: dict[str, dict[int, dict[str, float]]] = {}
    for result in gathered.results:
        if "mined" in result.result:
            seeds = mined.setdefault(result.header["label"], {})
            seeds[result.header["seed"]] = result.result["mined"]
    labels = [c.label for c in gathered.main if c.label in mined]
    if not labels:
        return ""
    looked = next(iter(mined[labels[0]].values()))
    names = ("false_negatives", "false_negatives_i2t", "false_negatives_t2i", "without", "skipped")
    percent = {
        label: {n: {seed: 100 * each[n] for seed, each in mined[label].items()} for n in names}
        for label in labels
    }
    base = gathered.baseline.label
    false = {label: columns[names[0]] for label, columns in percent.items()}
    tests = compare_values({n: (of, false.get(base, {})) for n, of in false.items() if n != base})
    text = (
        "### What was mined\n\n"
        f"The model of each run, without augmentation, on {looked['pairs']:,} training pairs in "
        f"batches, by its own options. Of all other pairs of a batch "
        f"{100 * looked['true_candidates']:.2f} % are true. False: mined negatives that are true, "
        "in percent, mean ± standard deviation over seeds; Δ: against "
        f"`{base}` within seeds, with the 95 % interval of the t-test. Without: "
        "anchors with no negative left. Left out: candidates that limits and semi_hard skip.\n\n"
    )
    heads = ["", "false", "i2t", "t2i", "Δ false", "without", "left out"]
    rows = []
    for label, columns in percent.items():
        cells = [spread_text(values.values()) for values in columns.values()]
        change = tests[label].test.text if label in tests else ""
        rows.append([label, *cells[:3], change, *cells[3:]])
    return text + markdown_table(heads, rows) + "\n"


def _other_section(gathered: Gathered, name: str) -> str:
    """A group with seeds of its own beside the first group."""
    contestants = gathered.others[name]
    partners = {contestant.label: contestant for contestant in gathered.main}
    first = gathered.recipe.groups[0].name
    heads = ["", "seeds", f"rsum, {name}", f"rsum, {first}, same seeds"]
    heads += ["positives, at the end", "hardest negatives, at the end"]
    rows = []
    for contestant in contestants:
        label = plain_label(contestant.label, name)
        own = contestant.values("rsum")
        beside = partners[label].values("rsum") if label in partners else {}
        shared = [beside[seed] for seed in own if seed in beside]
        cells = [
            label,
            _numbers(own),
            _mean(list(own.values())),
            _mean(shared),
            *(
                _mean([_last(run, f"mining/{logged}") for run in contestant.runs.values()], 2)
                for logged in ("mean_positive", "mean_hardest_negative")
            ),
        ]
        rows.append(cells)
    return f"### {name.capitalize()}\n\n" + markdown_table(heads, rows) + "\n"


def _last(run: Any, name: str) -> float | None:
    points = run.history.by_step(name)
    return points[-1][1] if points else None


def _mean(values: Sequence[float | None], digits: int = 1) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.{digits}f}" if known else ""
