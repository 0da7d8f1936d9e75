"""Hands samples that were taken in turns to pytest-benchmark, which would time one test at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ReplayClock:
    """A timer for pytest-benchmark that stands still except when a recorded duration passes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def replay(self, benchmark: Any, seconds: Iterable[float]) -> None:
        """Let `benchmark` (its fixture, with this clock as timer) see each duration as a round."""
        durations = list(seconds)
        remaining = iter(durations)

        def pass_time() -> None:
            self.now += next(remaining)

        benchmark.pedantic(pass_time, rounds=len(durations), iterations=1)
