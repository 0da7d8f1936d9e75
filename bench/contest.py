"""Timing: the contestants of a case take turns, so that a busy minute of the machine hits all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from bench.cases import Case, Effort, Suite, make_inputs
from bench.contestants import Contestant
from bench.gate import Judge
from bench.lineup import entrants, make_contestant

FLUSH_BYTES = 256 << 20
"""Written before each GPU run: larger than any L2 cache, so that none starts warm."""


@dataclass
class Samples:
    """Seconds per round of one contestant: elapsed, and of all threads of this process.

    Elapsed time far above the processor's time per thread betrays a machine busy with other work.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median elapsed seconds."""
        return statistics.median(self.wall)


@dataclass
class ContestResult:
    """Samples of those who passed the gate, and what the gate said to the others."""

    samples: dict[str, Samples] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, to: str) -> float | None:
        """Ratio of medians within this contest; None when one of the two has none."""
        if name not in self.samples or to not in self.samples:
            return None
        return self.samples[name].median / self.samples[to].median


@lru_cache(maxsize=1)
def _judge(case: Case) -> Judge:
    return Judge(case, make_inputs(case))


def judge_for(case: Case) -> Judge:
    """The judge of a case; neighbours that differ in objective or mode only share it."""
    return _judge(replace(case, op="", mode="", objective=""))


class Stopwatch:
    """Times one run on a device: (elapsed seconds, processor seconds of this process)."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        size = FLUSH_BYTES if self.cuda else 0
        self._flush = torch.empty(size, dtype=torch.uint8, device=device)

    def _prepare(self) -> None:
        if self.cuda:
            self._flush.zero_()
            torch.cuda.synchronize()

    def time(self, contestant: Contestant) -> tuple[float, float]:
        """Run once; the device has finished when the clock stops."""
        contestant.reset()
        self._prepare()
        processor, start = time.process_time(), time.perf_counter()
        result = contestant.run()
        if self.cuda:
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - start
        used = time.process_time() - processor
        del result  # outside of the measured time
        return elapsed, used


def turns(rounds: Mapping[str, int]) -> Iterator[list[str]]:
    """Who runs in each turn, in which order: `rounds` turns each, spread evenly over the contest.

    Those who need longest have the fewest rounds; sitting out now and then, and not all the end,
    they still meet the same hours of the machine as the others.
    """
    names, total = list(rounds), max(rounds.values())
    for turn in range(total):
        first = (turn + 1) % len(names)
        yield [
            name
            for name in names[first:] + names[:first]
            if (turn + 1) * rounds[name] // total > turn * rounds[name] // total
        ]


def take_turns(
    contestants: Mapping[str, Contestant], effort: Effort, device: str
) -> dict[str, Samples]:
    """Time all of them round after round, each round starting with another one.

    All take part in the first round, which tells how many rounds each has time for. It counts: the
    check before the contest has warmed everyone up.
    """
    stopwatch = Stopwatch(device)
    samples = {name: Samples() for name in contestants}

    def measure(name: str) -> None:
        wall, cpu = stopwatch.time(contestants[name])
        samples[name].wall.append(wall)
        samples[name].cpu.append(cpu)

    collecting = gc.isenabled()
    gc.disable()
    try:
        for name in contestants:
            measure(name)
        for names in turns({n: effort.rounds(s.median) - 1 for n, s in samples.items()}):
            for name in names:
                measure(name)
    finally:
        if collecting:
            gc.enable()
    return samples


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """torch's own setting for float32 products, which baselines and users' code follow."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def hold_contest(case: Case, suite: Suite) -> ContestResult:
    """Check every contestant of a case against float64, then time those who passed."""
    inputs = make_inputs(case)
    judge = judge_for(case)
    result = ContestResult()
    passed = {}
    with float32_precision(case.precision):
        for name, verdict in entrants(case, suite):
            if not verdict.ok:
                continue
            contestant = make_contestant(name, case, inputs)
            try:
                contestant.verify(judge)
            except AssertionError as error:
                result.failures[name] = str(error)
            else:
                passed[name] = contestant
        if passed:
            result.samples = take_turns(passed, suite.effort, case.device)
    return result
