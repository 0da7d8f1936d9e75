"""Timing: the methods of a case take turns, so that a busy minute of the machine hits all.

The same on every device. On a processor a sample is one call and the clock is the system's. On a
GPU a sample is as many calls as make it long enough, each on another copy of the inputs so that
none finds its own in the cache, between two CUDA events on an idle stream.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from bench.cases import Case, Effort, Inputs, Suite, make_inputs
from bench.judge import Judge
from bench.lineup import GRAPH, line_up, make_method, split_way, using
from bench.memory import gradient_bytes, peak_cuda
from bench.methods import Captured
from goal_kernels.backends.choice import BackendUnavailableError

LEAST_SECONDS = 0.004
"""What is shorter is repeated within a sample on a GPU, so that neither the clock's resolution nor
the start of the first kernel shows."""

MOST_CALLS = 20
LONGEST_SAMPLE = 0.06
"""Seconds a sample of many calls may take; longer ones get fewer calls."""

CACHE_BYTES = 180_000_000
"""Three times the largest L2 cache of a Hopper GPU (60 MB)."""

MOST_COPIES = 640
ERROR_LENGTH = 2000
"""Characters of a message that are kept, from its end."""

Tell = Callable[[str], None]
"""Called with the name of the method at work."""


def quiet(name: str) -> None:
    """Report nothing."""


class ProcessorClock:
    """Elapsed seconds, and processor seconds of all threads of this process.

    Elapsed time far above the processor's time per thread betrays a machine busy with other work.
    """

    def time(self, calls: Sequence[Callable[[], object]]) -> tuple[float, float]:
        processor, start = time.process_time(), time.perf_counter()
        for call in calls:
            result = call()
        elapsed = time.perf_counter() - start
        used = time.process_time() - processor
        del result  # outside of the measured time
        return elapsed, used

    def calls(self, seconds: float, full: bool) -> int:
        return 1


class DeviceClock:
    """Seconds between two events around the calls, and until the host was done with them.

    The stream is idle before, so waiting for Python counts.
    """

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def time(self, calls: Sequence[Callable[[], object]]) -> tuple[float, float]:
        torch.cuda.synchronize()
        start = time.perf_counter()
        self._start.record()
        for call in calls:
            call()
        self._end.record()
        host = time.perf_counter() - start
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1e3, host

    def calls(self, seconds: float, full: bool) -> int:
        """Calls of a sample, given the seconds of one. full: a replayed graph, the most."""
        fitting = int(LONGEST_SAMPLE / seconds) if seconds > 0 else MOST_CALLS
        wanted = MOST_CALLS if full else int(LEAST_SECONDS / max(seconds, 1e-9)) + 1
        return max(1, min(wanted, fitting, MOST_CALLS))


Clock = ProcessorClock | DeviceClock


def make_clock(device: str) -> Clock:
    """The clock of a device."""
    return DeviceClock() if device == "cuda" else ProcessorClock()


@dataclass
class Lane:
    """A method in a contest.

    methods: the same one on several copies of the inputs, called in rotation. wall, busy: seconds
    per call, one of each per round, as the clock tells them. first: seconds of the very first call,
    compilation included. mib: its peak of device memory beyond inputs and gradients, or None.
    """

    name: str
    methods: list[Any]
    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    calls: int = 1
    first: float = 0.0
    mib: float | None = None
    position: int = 0

    @property
    def median(self) -> float:
        """Median elapsed seconds."""
        return statistics.median(self.wall)

    def sample(self, clock: Clock) -> tuple[float, float]:
        """Both times of a call, over the calls of one sample."""
        count = len(self.methods)
        chosen = [self.methods[(self.position + i) % count] for i in range(self.calls)]
        self.position += self.calls
        for method in chosen:
            method.reset()
        again = self.calls > count
        with using(self.name):
            times = clock.time([method.step if again else method.run for method in chosen])
        return times[0] / self.calls, times[1] / self.calls

    def measure(self, clock: Clock) -> None:
        """Add a round."""
        wall, busy = self.sample(clock)
        self.wall.append(wall)
        self.busy.append(busy)

    def settle(self, clock: Clock) -> None:
        """The first round, and the number of calls of a sample."""
        self.measure(clock)
        self.calls = clock.calls(self.wall[0], split_way(self.name)[1] == GRAPH)
        if self.calls > 1:
            self.wall.clear()
            self.busy.clear()
            self.measure(clock)


@dataclass
class ContestResult:
    """Lanes of those that were timed; of the others, why not: wrong, refused, out of memory."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    oom: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, to: str) -> float | None:
        """Ratio of medians within this contest; None when one of the two has none.

        What is replayed from a graph is compared with what is replayed from a graph.
        """
        if split_way(name)[1] == GRAPH:
            to += GRAPH
        if name not in self.lanes or to not in self.lanes:
            return None
        return self.lanes[name].median / self.lanes[to].median

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Keep what goes wrong within as the fault of one method; a lost device is raised."""
        try:
            yield
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # an error of this one's kernels must not be the next's
            return
        except (BackendUnavailableError, NotImplementedError) as error:
            self.refused[name] = str(error)
        except torch.OutOfMemoryError as error:
            self.oom[name] = str(error).partition("\n")[0]
        except AssertionError as error:
            self.failures[name] = str(error)[-ERROR_LENGTH:]
        except Exception as error:
            if device_is_lost():
                raise
            self.failures[name] = describe_error(error)
        self.lanes.pop(name, None)
        release_memory()


def describe_error(error: BaseException) -> str:
    """Kind and message, and the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return text[-ERROR_LENGTH:]


def device_is_lost() -> bool:
    """Whether an earlier kernel of this process failed; such an error never goes away."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def release_memory() -> None:
    """Return unused memory to the device."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@lru_cache(maxsize=1)
def _inputs_and_judge(case: Case) -> tuple[Inputs, Judge]:
    inputs = make_inputs(case)
    return inputs, Judge(case, inputs)


def inputs_and_judge(case: Case) -> tuple[Inputs, Judge]:
    """Embeddings and judge, kept for neighbours that differ in operation, mode and objective."""
    return _inputs_and_judge(replace(case, op="", mode="", objective=""))


def copies_of(inputs: Inputs, most: int = MOST_COPIES) -> list[Inputs]:
    """As many copies as outgrow the caches of a GPU, at most `most`; one on a processor."""
    if not inputs.image.is_cuda:
        return [inputs]
    size = sum(x.numel() * x.element_size() for x in inputs if x is not None)
    count = min(most, max(1, -(-CACHE_BYTES // size)))
    ids = inputs.ids
    return [
        Inputs(inputs.image.clone(), inputs.text.clone(), None if ids is None else ids.clone())
        for _ in range(count)
    ]


def make_lane(name: str, case: Case) -> Lane:
    """A method that has run once and passed its check. Raises: whatever it does wrong."""
    inputs, judge = inputs_and_judge(case)
    with using(name):
        start = time.perf_counter()
        method = make_method(name, case, inputs)
        lane = Lane(name, [method])
        if case.device == "cuda":
            lane.mib = max(0, peak_cuda(method) - gradient_bytes(name, case)) / 2**20
        else:
            method.run()
        lane.first = time.perf_counter() - start
        method.verify(judge)
        if case.device == "cuda":
            pool = torch.cuda.graph_pool_handle()
            lane.methods = []
            for copy in copies_of(inputs, MOST_CALLS if split_way(name)[1] else MOST_COPIES):
                method = make_method(name, case, copy, pool)
                method.step()
                if isinstance(method, Captured):
                    method.results.clear()
                lane.methods.append(method)
    return lane


def turns(rounds: Mapping[str, int]) -> Iterator[list[str]]:
    """The methods of each turn, in order: `rounds` turns each, spread evenly over the contest.

    The order is drawn anew each turn, the same in every contest: what runs before a short method
    decides what its caches hold, so none may always follow the same one. The slowest have the
    fewest rounds; sitting out now and then, and not all the end, they still meet the same hours of
    the machine as the others.
    """
    total, drawn = max(rounds.values(), default=0), random.Random(0)
    for turn in range(total):
        yield [
            name
            for name in drawn.sample(list(rounds), len(rounds))
            if (turn + 1) * rounds[name] // total > turn * rounds[name] // total
        ]


def take_turns(result: ContestResult, effort: Effort, clock: Clock, tell: Tell = quiet) -> None:
    """Time all lanes of a contest round after round, in the order of `turns`.

    All take part in the first round, which tells how many rounds each has time for. It counts: the
    check before the contest has warmed up every method.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name, lane in list(result.lanes.items()):
            tell(name)
            with result.attempt(name):
                lane.settle(clock)
        rounds = {n: effort.rounds(x.median * x.calls) - 1 for n, x in result.lanes.items()}
        for names in turns(rounds):
            for name in names:
                tell(name)
                with result.attempt(name):
                    if name in result.lanes:
                        result.lanes[name].measure(clock)
    finally:
        if collecting:
            gc.enable()


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """torch's own setting for float32 products, which baselines and users' code follow."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def contest_among(
    names: Iterable[str],
    make: Callable[[str], Lane],
    effort: Effort,
    device: str = "cpu",
    tell: Tell = quiet,
) -> ContestResult:
    """Time the methods that `make` makes of their names, which raises when an answer is wrong."""
    result = ContestResult()
    for name in names:
        tell(name)
        with result.attempt(name):
            result.lanes[name] = make(name)
    take_turns(result, effort, make_clock(device), tell)
    return result


def hold_contest(
    case: Case, suite: Suite, tell: Tell = quiet, without: Sequence[str] = ()
) -> ContestResult:
    """Check every method of a case against float64, then time those that passed.

    without: methods that are to be left out.
    """
    with float32_precision(case.precision):
        verdicts = dict(line_up(case, suite))
        names = [name for name, verdict in verdicts.items() if verdict.ok and name not in without]
        make = partial(make_lane, case=case)
        result = contest_among(names, make, suite.effort, case.device, tell)
    result.refused |= {name: verdict.reason for name, verdict in verdicts.items() if not verdict.ok}
    return result
