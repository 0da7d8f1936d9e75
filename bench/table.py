"""Markdown tables of a run: a short one for the README, a long one with every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from bench.cases import FORWARD, FORWARD_BACKWARD, GOAL_LOSS, MINE
from bench.contestants import BASELINES, COMPILED, EAGER, GEMM, GEMM_OUT, REFERENCE
from bench.noise import busy_warning
from bench.records import PEAK_MEMORY, WALL_TIME, Record, Run

Key = tuple[str, str, str, str, int, int]
ABSENT = "–"
SHORT_SIZES = 2
"""Batch sizes in the README's table: the largest ones."""


def case_key(record: Record) -> Key:
    """Identity and order of a case."""
    return (
        record.op,
        record.mode,
        record.objective,
        record.dtype,
        record.D,
        record.B,
    )


def by_case(records: Iterable[Record]) -> list[tuple[Key, dict[str, Record]]]:
    """Records of one metric grouped by case, in order: (key, contestant -> record)."""
    ordered = sorted(records, key=case_key)
    return [(key, {r.backend: r for r in group}) for key, group in groupby(ordered, case_key)]


def backend_names(records: Iterable[Record]) -> list[str]:
    """The library's backends among the contestants, without the reference, in order of name."""
    return sorted({r.backend for r in records} - {*BASELINES, REFERENCE})


def _number(value: float | None, pattern: str = "{:.3g}") -> str:
    """Three digits, without an exponent for large times."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else pattern.format(value)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns hold words, the others numbers."""
    rule = ["---"] * left + ["--:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _job(key: Key) -> str:
    op, mode, objective = key[:3]
    if op == MINE:
        return "mining alone"
    return f"`{objective}`, {mode.replace('_', ' + ')}"


def time_table(records: Iterable[Record]) -> str:
    """Median times in ms of every contestant, and each backend as a multiple of the baselines."""
    records = [r for r in records if r.metric == WALL_TIME]
    backends = backend_names(records)
    shown = [n for n in (GEMM, GEMM_OUT, EAGER, COMPILED) if any(r.backend == n for r in records)]
    header = ["job", "dtype", "B × D", *(f"{n} ms" for n in (*shown, *backends))]
    for backend in backends:
        header += [f"{backend} / {GEMM}", f"{backend} / {EAGER}"]
    rows = []
    for key, found in by_case(records):
        row = [_job(key), key[3], f"{key[5]} × {key[4]}"]
        row += [_number(found[n].p50 if n in found else None) for n in (*shown, *backends)]
        for backend in backends:
            record = found.get(backend)
            ratios = (record.ratio_to_gemm, record.ratio_to_eager) if record else (None, None)
            row += [_number(ratio, "{:.2f}") for ratio in ratios]
        rows.append(row)
    return _markdown(header, rows, 3)


def memory_table(records: Iterable[Record]) -> str:
    """Peak MiB beyond inputs and gradients; empty text when it was not measured."""
    records = [r for r in records if r.metric == PEAK_MEMORY]
    if not records:
        return ""
    names = [n for n in BASELINES if any(r.backend == n for r in records)]
    names += backend_names(records)
    rows = [
        [
            _job(key),
            key[3],
            f"{key[5]} × {key[4]}",
            *(_number(found[n].p50 if n in found else None) for n in names),
        ]
        for key, found in by_case(records)
    ]
    return _markdown(["extra memory", "dtype", "B × D", *(f"{n} MiB" for n in names)], rows, 3)


def select_short(records: Iterable[Record]) -> list[Record]:
    """The README's choice: training steps and mining at the largest sizes."""
    records = list(records)
    timed = [r for r in records if r.metric == WALL_TIME]
    if not timed:
        return records
    width = max(r.D for r in timed)
    batches = sorted({r.B for r in timed})[-SHORT_SIZES:]
    jobs = ((MINE, FORWARD), (GOAL_LOSS, FORWARD_BACKWARD))
    largest = [r for r in timed if width == r.D and r.B in batches and (r.op, r.mode) in jobs]
    return largest + [r for r in records if r.metric == PEAK_MEMORY]


def provenance(run: Run, command: str) -> str:
    """One paragraph: what was measured, where, with what, when, by which command."""
    machine = run.machine
    return (
        f"Measured on {run.date} on {machine['device']} ({machine['cores']} cores, "
        f"{machine['threads']} threads, native kernels: {machine['isa']}) with torch "
        f"{machine['torch']}, Python {machine['python']}, float32 precision "
        f"`{machine['precision']}`, commit `{run.commit}`, by `{command}`. Medians of rounds taken "
        "in turns; every contestant passed a float64 check of the same case first. "
        f"`{GEMM}`: `X @ Y.T` alone; `{GEMM_OUT}`: the same into existing memory; `{EAGER}`: the "
        f"vectorised torch pipeline; `{COMPILED}`: torch.compile of it."
    )


def run_command(run: Run) -> str:
    """The command that repeats a run."""
    suite = run.machine["suite"]
    options = "" if suite == "quick" else f" --{suite}"
    if run.machine["target"] != "cpu":
        options += f" --device {run.machine['target']}"
    if run.machine["precision"] != "highest":
        options += f" --precision {run.machine['precision']}"
    if run.machine["selected"]:
        options += f" -k '{run.machine['selected']}'"
    return f"python -m bench{options} --threads {run.machine['threads']}"


def render(run: Run, records: Iterable[Record]) -> str:
    """Provenance and the tables of `records`, as Markdown that ends in one newline."""
    records = list(records)
    warning = busy_warning(run)
    parts = [provenance(run, run_command(run)), f"**Not to be quoted: {warning}**" * bool(warning)]
    if any(r.metric == WALL_TIME for r in records):
        parts.append(time_table(records))
    parts.append(memory_table(records))
    return "\n\n".join(part for part in parts if part) + "\n"
