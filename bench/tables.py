"""Markdown tables of a run: a short one for the README, a long one with every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.cases import DEFAULT_SUITE, FORWARD, FORWARD_BACKWARD, GOAL_LOSS, MINE, SUITES, Case
from bench.lineup import (
    BASELINES,
    COMPILED,
    EAGER,
    GEMM,
    GEMM_OUT,
    METRIC_LEARNING,
    REFERENCE,
)
from bench.results import PEAK_MEMORY, WALL_TIME, Record, Run, busy_warning
from bench.targets import BACKEND, Figure, Verdict, judge_targets
from goal_kernels.terminal import markdown_table

ABSENT = "–"
SHORT_BATCH = 1024
"""The README's table has the largest batch, and this one for the size of everyday training."""


SHOWN_FIGURES = 2
"""Of each target: one per size, or the worst two of those that hold everywhere."""

Found = dict[str, Record]
"""Method -> record of one metric in one case."""


def by_case(records: Iterable[Record], metric: str) -> dict[Case, Found]:
    """Records of one metric grouped by case, in order."""
    grouped: dict[Case, Found] = {}
    for record in sorted((r for r in records if r.metric == metric), key=lambda r: r.case.place):
        grouped.setdefault(record.case, {})[record.backend] = record
    return grouped


def backend_names(records: Iterable[Record]) -> list[str]:
    """The library's backends among the methods, without the reference, in order of name."""
    return sorted({r.backend for r in records} - {*BASELINES, REFERENCE})


def number(value: float | None, pattern: str = "{:.3g}") -> str:
    """Three digits, without an exponent for large times."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else pattern.format(value)


def _median(found: Found, name: str) -> str:
    return number(found[name].p50 if name in found else None)


def job_table(records: Iterable[Record], op: str) -> str:
    """Median ms and peak MiB of every method of one op, and each backend over the baselines.

    A backend is compared with what its job can do at best: mining with the product into existing
    memory, a loss with the product as users write it. Empty text when the op was not measured.
    """
    records = [r for r in records if r.op == op]
    timed, weighed = by_case(records, WALL_TIME), by_case(records, PEAK_MEMORY)
    backends = backend_names(records)
    floor = GEMM_OUT if op == MINE else GEMM
    names = (GEMM, GEMM_OUT, EAGER, COMPILED, METRIC_LEARNING, *backends)
    clocked = [n for n in names if any(n in found for found in timed.values())]
    scaled = [n for n in names if any(n in found for found in weighed.values())]
    header = ["job", "dtype", "B × D", *(f"{n} ms" for n in clocked)]
    header += [f"{backend} / {base}" for backend in backends for base in (floor, EAGER)]
    header += [f"{n} MiB" for n in scaled]
    rows = []
    for case in sorted({*timed, *weighed}, key=lambda case: case.place):
        found, extra = timed.get(case, {}), weighed.get(case, {})
        row = [case.job, str(case.kind), case.size]
        row += [_median(found, name) for name in clocked]
        for backend in backends:
            for base in (floor, EAGER):
                record = found.get(backend)
                row.append(number(record.ratio_to(base) if record else None, "{:.2f}"))
        rows.append(row + [_median(extra, name) for name in scaled])
    return markdown_table(header, rows, 3)


def select_short(records: Iterable[Record]) -> list[Record]:
    """The README's choice at the largest D: mining at one size, training steps at two."""
    records = list(records)
    timed = [r for r in records if r.metric == WALL_TIME]
    if not timed:
        return records
    width, largest = max(r.D for r in timed), max(r.B for r in timed)
    batches = {(MINE, FORWARD): (largest,), (GOAL_LOSS, FORWARD_BACKWARD): (SHORT_BATCH, largest)}
    return [
        r
        for r in records
        if r.metric in (WALL_TIME, PEAK_MEMORY)
        and width == r.D
        and r.B in batches.get((r.op, r.mode), ())
    ]


def provenance(run: Run) -> str:
    """One paragraph: what was measured, where, with what, when, by which command."""
    machine = run.machine
    return (
        f"Measured on {run.date} on {machine['device']} ({machine['cores']} cores, "
        f"{machine['threads']} threads, native kernels: {machine['isa']}) with torch "
        f"{machine['torch']}, Python {machine['python']}, commit `{run.commit}`, by "
        f"`{run_command(run)}`. Medians of rounds taken in turns; every method passed a "
        "float64 check of the same case first. float32 with torch's word for the precision "
        f"of products, which the baselines follow too. `{GEMM}`: `X @ Y.T` alone; "
        f"`{GEMM_OUT}`: the same into existing memory; `{EAGER}`: the vectorised torch "
        f"pipeline, spared the bookkeeping of autograd; `{COMPILED}`: torch.compile of it; "
        f"`{METRIC_LEARNING}`: pytorch-metric-learning. MiB: peak memory beyond "
        "inputs and gradients."
    )


def run_command(run: Run) -> str:
    """The command that repeats a run."""
    machine = run.machine
    suite = SUITES[machine["suite"]]
    options = "" if machine["suite"] == DEFAULT_SUITE else f" --{machine['suite']}"
    if machine["target"] != "cpu":
        options += f" --device {machine['target']}"
    if tuple(machine["precisions"]) != suite.precisions:
        options += "".join(f" --precision {word}" for word in machine["precisions"])
    if machine["selected"]:
        options += f" -k '{machine['selected']}'"
    return f"python -m bench{options} --threads {machine['threads']}"


def _places(figures: Sequence[Figure]) -> str:
    return ", ".join(f"{figure.ratio:.2f} at {figure.where}" for figure in figures)


def target_table(verdicts: Sequence[Verdict]) -> str:
    """Limit, the two worst figures and whether it holds, as Markdown; empty without verdicts."""
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [
        [
            v.target.title,
            words[v.met],
            _places(v.figures[:SHOWN_FIGURES]),
            f"{v.target.limit:.2f}",
            str(len(v.figures)),
        ]
        for v in verdicts
    ]
    header = [f"time of `{BACKEND}`: what / over what", "", "worst measured", "limit", "cases"]
    return markdown_table(header, rows, 3)


def target_sentence(verdicts: Sequence[Verdict]) -> str:
    """How many of the measured targets hold; empty when none was measured."""
    measured = [v for v in verdicts if v.figures]
    if not measured:
        return ""
    met = f"{sum(bool(v.met) for v in measured)} of {len(measured)}"
    return (
        f"Targets of the `{BACKEND}` kernels (`bench/targets.py`) that are met: {met}; the full "
        "table names the others."
    )


def _document(run: Run, records: Sequence[Record], targets: str) -> str:
    """Provenance, a warning if there must be one, tables and targets; ends in one newline."""
    warning = busy_warning(run)
    parts = [provenance(run), f"**Not to be quoted: {warning}**" * bool(warning)]
    parts += [job_table(records, op) for op in (MINE, GOAL_LOSS)]
    return "\n\n".join(part for part in (*parts, targets) if part) + "\n"


def render(run: Run) -> str:
    """Every case and every target, as Markdown."""
    table = target_table(judge_targets(run.records))
    return _document(run, run.records, f"## Targets\n\n{table}" if table else "")


def render_short(run: Run) -> str:
    """The README's part: the largest cases, and how many targets are met."""
    return _document(run, select_short(run.records), target_sentence(judge_targets(run.records)))
