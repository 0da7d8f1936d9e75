"""Retrieval ranks of a test set, five texts an image: the backends and what users write.

Run with `python -m bench`, which keeps its times in the raw JSON only, or alone with a table:

    python -m pytest -c bench/pytest.ini bench/bench_ranks.py -o addopts= --suite full
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from bench.bench_methods import record
from bench.cases import Effort
from bench.contest import ContestResult
from bench.ranks import RankCase, hold_rank_contest, rankers

EFFORT = Effort(6.0, 3, 15)
"""The reference takes tens of seconds for the largest case."""

CASES = {
    "smoke": (RankCase(64, 32),),
    # The 1k and 5k test splits of the field.
    "quick": (RankCase(1000, 1024),),
    "full": (RankCase(1000, 1024), RankCase(5000, 1024)),
}


@lru_cache(maxsize=1)
def _contest(case: RankCase) -> ContestResult:
    return hold_rank_contest(case, EFFORT)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark per case and ranker, on the CPU only."""
    on_cpu = metafunc.config.getoption("device") == "cpu"
    cases = CASES[metafunc.config.getoption("suite")] if on_cpu else ()
    pairs = [
        pytest.param(case, name, id=f"{case}-{name}") for case in cases for name in rankers(case)
    ]
    metafunc.parametrize(("rank_case", "ranker"), pairs)


def bench_ranks(rank_case: RankCase, ranker: str, benchmark: Any) -> None:
    """Fails, and reports no time, when a ranker's counts are wrong."""
    result = _contest(rank_case)
    if ranker in result.failures:
        pytest.fail(f"wrong, so no time: {result.failures[ranker]}", pytrace=False)
    benchmark.group = str(rank_case)
    lane = result.lanes[ranker]
    record(benchmark, lane.methods[0].run, lane.wall)
