"""Losses and mining, and their peak memory: one benchmark per case and method.

The first benchmark of a case holds its contest, in which all methods take turns; each one hands its
own rounds to pytest-benchmark, which times one more by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from bench.cases import Case
from bench.contest import ContestResult
from bench.lineup import using
from bench.memory import extra_mib_apart
from bench.results import PEAK_MEMORY, measure, summary


def record(benchmark: Any, run: Callable[[], object], seconds: Iterable[float]) -> None:
    """Let pytest-benchmark time one round of `run`, and add those that were taken in turns."""
    benchmark.pedantic(run, rounds=1, iterations=1)
    for wall in seconds:
        benchmark.stats.update(wall)


def describe(case: Case, method: str) -> dict[str, Any]:
    """The fields that every record shares."""
    return {**asdict(case), "backend": method, "threads": torch.get_num_threads()}


def bench_steps(
    case: Case, method: str, benchmark: Any, contest: Callable[[Case], ContestResult]
) -> None:
    """Fails, and reports no time, when the method's result is wrong."""
    result = contest(case)
    for what, messages in (("wrong", result.failures), ("out of memory", result.oom)):
        if method in messages:
            pytest.fail(f"{what}, so no time: {messages[method]}", pytrace=False)
    benchmark.group = str(case)
    benchmark.extra_info.update(describe(case, method), **measure(case, method, result))
    lane = result.lanes[method]
    lane.methods[0].reset()

    def run() -> None:
        with using(method):
            lane.methods[0].run()
        if case.device == "cuda":
            torch.cuda.synchronize()

    record(benchmark, run, lane.wall)


def bench_memory(case: Case, method: str, benchmark: Any) -> None:
    """Peak memory of a step beyond its inputs and gradients, each method in its own process.

    The time that pytest-benchmark sees here is that of the whole process and not reported.
    """
    mib = benchmark.pedantic(extra_mib_apart, (method, case, torch.get_num_threads()))
    benchmark.group = f"memory-{case}"
    measurements = {PEAK_MEMORY: summary([mib], "MiB")}
    benchmark.extra_info.update(describe(case, method), measurements=measurements, ratios={})
