"""The whole objective: forward, and forward with backward, per backend and baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.cases import Case
from bench.contest import ContestResult
from bench.measurements import measure
from bench.replay import ReplayClock

CLOCK = ReplayClock()


@pytest.mark.benchmark(timer=CLOCK)
def bench_objective(
    case: Case,
    contestant: str,
    benchmark: Any,
    contest: Callable[[Case], ContestResult],
    describe: Callable[[Case, str], dict[str, Any]],
) -> None:
    """Fails, and reports no time, when the contestant's result is wrong."""
    result = contest(case)
    if contestant in result.failures:
        pytest.fail(f"wrong result, so no time: {result.failures[contestant]}", pytrace=False)
    benchmark.group = str(case)
    benchmark.extra_info.update(describe(case, contestant), **measure(case, contestant, result))
    CLOCK.replay(benchmark, result.samples[contestant].wall)
