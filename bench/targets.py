"""Limits on the times of the CPU kernels, as ratios, and what a run says about each.

A limit is an upper one: time of the `cpu` backend over the time of something measured beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from bench.cases import (
    BFLOAT16,
    FORWARD,
    FORWARD_BACKWARD,
    GOAL_LOSS,
    HIGH,
    HIGHEST,
    MINE,
    PLAIN,
    RELATIVE,
    Case,
    Kind,
)
from bench.lineup import EAGER, GEMM, GEMM_OUT
from bench.results import WALL_TIME, Record

BACKEND = "cpu"
BATCHES = (4096, 8192)
WIDTH = 1024
"""Sizes of the targets that do not speak of every size."""

Records = Mapping[Case, Record]
"""Wall times of the backend."""


class Figure(NamedTuple):
    """A measured ratio and where."""

    where: str
    ratio: float


Measure = Callable[[Records], Iterator[Figure]]


@dataclass(frozen=True)
class Target:
    """An upper limit of a ratio for one kind, and how to read it off a run."""

    name: str
    kind: Kind
    limit: float
    measure: Measure

    @property
    def title(self) -> str:
        """Name and kind."""
        return f"{self.name}, {self.kind}"


class Verdict(NamedTuple):
    """A target and all that was measured for it, the worst first."""

    target: Target
    figures: tuple[Figure, ...]

    @property
    def met(self) -> bool | None:
        """None when nothing was measured."""
        return self.figures[0].ratio <= self.target.limit if self.figures else None


def _sized(records: Records, op: str, mode: str, objective: str | None = None) -> Iterator[Record]:
    """Records of a job at the sizes of the targets."""
    for case, record in records.items():
        fits = (case.op, case.mode) == (op, mode) and objective in (None, case.objective)
        if fits and case.batch in BATCHES and case.width == WIDTH:
            yield record


def _figures(records: Iterable[Record], baseline: str, with_job: bool = False) -> Iterator[Figure]:
    for record in records:
        ratio = record.ratio_to(baseline)
        if ratio is not None:
            case = record.case
            yield Figure(f"{case.size} ({case.job})" if with_job else case.size, ratio)


def mining_over_product(records: Records) -> Iterator[Figure]:
    """Mining over the product into existing memory."""
    return _figures(_sized(records, MINE, FORWARD), GEMM_OUT)


def step_over(baseline: str, records: Records) -> Iterator[Figure]:
    """A training step that needs only mining, over a baseline."""
    return _figures(_sized(records, GOAL_LOSS, FORWARD_BACKWARD, PLAIN), baseline)


def relative_over_plain(records: Records) -> Iterator[Figure]:
    """A training step with relative sums over one without.

    The two were timed in different contests, so each is taken over the product of its own: a
    slower minute of the machine then cancels.
    """
    for record in _sized(records, GOAL_LOSS, FORWARD_BACKWARD, RELATIVE):
        plain = records.get(replace(record.case, objective=PLAIN))
        above, below = record.ratio_to_gemm_out, plain.ratio_to_gemm_out if plain else None
        if above is not None and below is not None:
            yield Figure(record.case.size, above / below)


def anything_over_eager(records: Records) -> Iterator[Figure]:
    """Every job at every size over eager torch."""
    return _figures(records.values(), EAGER, with_job=True)


def _each(name: str, measure: Measure, limits: Mapping[Kind, float]) -> list[Target]:
    return [Target(name, kind, limit, measure) for kind, limit in limits.items()]


STEP = "forward + backward"
TARGETS = (
    *_each(f"mining / {GEMM_OUT}", mining_over_product, {BFLOAT16: 1.05, HIGHEST: 1.1, HIGH: 0.33}),
    *_each(
        f"{STEP} / {GEMM}", partial(step_over, GEMM), {BFLOAT16: 0.75, HIGHEST: 1.0, HIGH: 0.35}
    ),
    *_each(f"{STEP} / {EAGER}", partial(step_over, EAGER), {BFLOAT16: 0.2, HIGH: 0.2}),
    *_each(
        "relative sums / plain", relative_over_plain, dict.fromkeys((BFLOAT16, HIGHEST, HIGH), 1.3)
    ),
    *_each(
        f"any job / {EAGER}", anything_over_eager, dict.fromkeys((BFLOAT16, HIGHEST, HIGH), 1.0)
    ),
)


def judge_targets(records: Sequence[Record]) -> list[Verdict]:
    """Every target with what these records say about it; none when the backend was not timed."""
    timed = {r.case: r for r in records if r.backend == BACKEND and r.metric == WALL_TIME}
    verdicts = []
    for target in TARGETS if timed else ():
        chosen = {c: r for c, r in timed.items() if c.kind == target.kind}
        figures = sorted(target.measure(chosen), key=lambda figure: -figure.ratio)
        verdicts.append(Verdict(target, tuple(figures)))
    return verdicts
