"""Whether the machine was busy with other work while a run was made."""

from __future__ import annotations

import statistics

from bench.contestants import GEMM_OUT
from bench.records import Run

LEAST_FLOPS = 5e8
"""Smaller products do not keep all threads at work for long enough to tell."""

LEAST_SHARE = 0.85
"""A vendor product that has the machine for itself uses nearly all of its threads' time."""


def processor_share(run: Run) -> float | None:
    """Median of processor time / (elapsed time x threads) over the larger vendor products.

    None on a GPU or when nothing was large enough. Well below 1: other work took the processor.
    """
    if run.machine["target"] == "cuda":
        return None
    found: dict[tuple[object, ...], dict[str, float]] = {}
    for record in run.records:
        large = 2 * record.B * record.B * record.D >= LEAST_FLOPS
        if record.backend == GEMM_OUT and large:
            found.setdefault(record.case, {})[record.metric] = record.p50
    shares = [
        times["cpu_time"] / (times["wall_time"] * run.machine["threads"])
        for times in found.values()
        if {"cpu_time", "wall_time"} <= set(times)
    ]
    return statistics.median(shares) if shares else None


def busy_warning(run: Run) -> str:
    """A sentence for the reader of a run made on a busy machine, empty otherwise."""
    share = processor_share(run)
    if share is None or share >= LEAST_SHARE:
        return ""
    return (
        f"the machine was busy: X @ Y.T got only {share:.0%} of the processor time of its "
        f"{run.machine['threads']} threads; run again when it is quiet before quoting a figure."
    )
