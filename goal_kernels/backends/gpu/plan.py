"""How a call is mined on a GPU: the strategies, and the table that chooses among them.

A row of the table says for which devices, kinds and sizes a strategy is taken, and on what
evidence. Rows are tried in order and the last one matches everything. `python -m tools.gpu_session`
times every strategy at every size; a row is changed together with the result file that it names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.gpu.runtime import device_capability, multiprocessors

TILE = "tile"
"""One or a few tiles per program, partial results merged afterwards; any device and precision."""

STRIP = "strip"
"""Column blocks held while row tiles stream past; maxima stay in registers."""

HOPPER = "hopper"
"""The hand-written kernel for compute capability 9.0; by name until a GPU has verified it."""

STRATEGIES = (TILE, STRIP, HOPPER)
AUTO = "auto"

IEEE = "ieee"
"""Kind of a float32 product in full precision: no tensor cores."""

UNLIMITED = math.inf
NOT_MEASURED = "not measured on a GPU"


class Subject(NamedTuple):
    """What the choice depends on: compute capability, kind of product, N * M pairs, width D.

    kind: "bfloat16", "float16", IEEE, or float32's "high" and "medium".
    """

    capability: tuple[int, int]
    kind: str
    pairs: int
    width: int


class Rule(NamedTuple):
    """One row: where it holds, as half-open ranges, what it takes, and why.

    kinds: empty for every kind. evidence: a result file under bench/results, or what stands in.
    """

    strategy: str
    evidence: str
    kinds: tuple[str, ...] = ()
    capabilities: tuple[tuple[int, int], tuple[int, int]] = ((8, 0), (1000, 0))
    pairs: tuple[float, float] = (0, UNLIMITED)
    widths: tuple[float, float] = (0, UNLIMITED)

    def holds(self, subject: Subject) -> bool:
        """Whether the rule matches."""
        return (
            (not self.kinds or subject.kind in self.kinds)
            and self.capabilities[0] <= subject.capability < self.capabilities[1]
            and self.pairs[0] <= subject.pairs < self.pairs[1]
            and self.widths[0] <= subject.width < self.widths[1]
        )


SMALL_BATCH = 2048
"""Up to here launches, not products, take the time of a step (gpu.md, section 1)."""

TABLE = (
    Rule(
        TILE,
        f"{NOT_MEASURED}; without tensor cores the product takes so long that any epilogue hides",
        kinds=(IEEE,),
    ),
    Rule(
        TILE,
        f"{NOT_MEASURED}; a batch this small is a few tiles per multiprocessor",
        pairs=(0, SMALL_BATCH**2 + 1),
    ),
    Rule(STRIP, f"{NOT_MEASURED}; fewest instructions per element in the machine code"),
)
"""First row that holds decides."""


def choose(subject: Subject) -> Rule:
    """The row that decides."""
    return next(rule for rule in TABLE if rule.holds(subject))


def product_kind(dtype: torch.dtype, precision: str) -> str:
    """`Subject.kind` of embeddings of `dtype` at `precision`, which only float32 looks at."""
    if dtype == torch.float32:
        return IEEE if precision == "highest" else precision
    return str(dtype).removeprefix("torch.")


_FORCED_STRATEGY: ContextVar[str] = ContextVar("strategy", default=AUTO)
_FORCED_PROGRAMS: ContextVar[int] = ContextVar("programs", default=0)


@contextmanager
def _held(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """A context variable at a value inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def use_strategy(name: str) -> Iterator[None]:
    """Mine by one strategy inside, whatever the table says; for measuring and for tests.

    A call that it cannot serve raises NotImplementedError. Raises: ValueError for unknown names.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {name!r}.")
    with _held(_FORCED_STRATEGY, name):
        yield


@contextmanager
def use_programs(count: int) -> Iterator[None]:
    """Give strips and the Hopper kernel that many programs inside; for tests.

    Results must not change.
    """
    if count < 1:
        raise ValueError(f"programs: expected at least 1, got {count}.")
    with _held(_FORCED_PROGRAMS, count):
        yield


def forced_programs() -> int:
    """What `use_programs` says, 0 outside of it."""
    return _FORCED_PROGRAMS.get()


def usual_programs(device: torch.device) -> int:
    """As many programs as the device runs at a time, or what `use_programs` says."""
    return forced_programs() or multiprocessors(device)


def choose_strategy(image: Tensor, columns: int, precision: str, asked: str = AUTO) -> str:
    """The strategy for image embeddings [N, D] against `columns` texts.

    asked: the one strategy of the backend, AUTO for the choice of the table.
    """
    kind = product_kind(image.dtype, precision)
    forced = _FORCED_STRATEGY.get() if asked == AUTO else asked
    if forced == AUTO:
        capability = device_capability(image.device)
        subject = Subject(capability, kind, image.shape[0] * columns, image.shape[1])
        return choose(subject).strategy
    if forced != TILE and kind == IEEE:
        raise NotImplementedError(
            f"strategy {forced!r} multiplies on tensor cores, which have no full float32 "
            "precision; use precision='high' or 'medium', or the strategy 'tile'"
        )
    return forced
