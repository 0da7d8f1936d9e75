"""Rounds of timings taken in turns, on the clock of the GPU or of the processor."""

from __future__ import annotations

import gc
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.measurements import summary

ROUNDS = 15
LEAST_SECONDS = 0.004
"""What is shorter is repeated within a sample, so that neither the clock's resolution nor the
start of the first kernel shows."""

MOST_CALLS = 20
LONGEST_SAMPLE = 0.06
"""Seconds a sample of many calls may take; longer ones get fewer calls."""

Call = Callable[[], object]


class Clock(ABC):
    """Times calls on a device. least_rounds: of a contest, however long it takes."""

    least_rounds = 3

    @abstractmethod
    def seconds(self, calls: Sequence[Call]) -> float:
        """Run all of them; seconds until the last one's work is done."""


class ProcessorClock(Clock):
    """Elapsed time, for a device that works while it is called; of dry runs only."""

    least_rounds = 1

    def seconds(self, calls: Sequence[Call]) -> float:
        start = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - start


class DeviceClock(Clock):
    """Two events around the calls. The stream is idle before, so waiting for Python counts."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def seconds(self, calls: Sequence[Call]) -> float:
        torch.cuda.synchronize()
        self._start.record()
        for call in calls:
            call()
        self._end.record()
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1e3


def make_clock(device: str) -> Clock:
    """The clock of a device."""
    return DeviceClock() if device == "cuda" else ProcessorClock()


@dataclass
class Lane:
    """One contestant in a contest.

    copies: the same job on different copies of the inputs, called in rotation. full: many calls per
    sample whatever they take (a replayed graph starts no kernel from Python). context: made around
    each sample, outside of its time.
    """

    copies: Sequence[Call]
    full: bool = False
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    calls: int = 1
    samples: list[float] = field(default_factory=list)
    position: int = 0

    def next_calls(self, count: int) -> list[Call]:
        """The next so many in rotation."""
        chosen = [self.copies[(self.position + i) % len(self.copies)] for i in range(count)]
        self.position += count
        return chosen

    def settle(self, seconds: float) -> None:
        """Choose the number of calls per sample, given the seconds of one."""
        fitting = int(LONGEST_SAMPLE / seconds) if seconds > 0 else MOST_CALLS
        wanted = MOST_CALLS if self.full else int(LEAST_SECONDS / max(seconds, 1e-9)) + 1
        self.calls = max(1, min(wanted, fitting, MOST_CALLS))

    def sample(self, clock: Clock) -> float:
        """Seconds per call, of one sample."""
        with self.context():
            return clock.seconds(self.next_calls(self.calls)) / self.calls

    def figures(self) -> dict[str, Any]:
        """Quantiles in milliseconds, what they are quantiles of, and calls per sample."""
        values = summary([1e3 * s for s in self.samples], "ms")
        samples = [float(f"{1e3 * s:.5g}") for s in self.samples]
        return {**values, "calls": self.calls, "samples": samples}


def take_rounds(
    lanes: Mapping[str, Lane], clock: Clock, seconds: float, tell: Callable[[str], None]
) -> None:
    """Fill the lanes with samples: rounds in random order, as many as `seconds` allow.

    Each lane has run once before.
    """
    order = list(lanes)
    shuffle = random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.disable()
    end = time.monotonic() + seconds
    try:
        for name in order:
            tell(name)
            lanes[name].settle(lanes[name].sample(clock))
        for turn in range(ROUNDS):
            if turn >= clock.least_rounds and time.monotonic() > end:
                break
            shuffle(order)
            for name in order:
                tell(name)
                lanes[name].samples.append(lanes[name].sample(clock))
    finally:
        if collecting:
            gc.enable()
