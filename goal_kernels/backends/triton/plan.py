"""How a call is mined on a GPU: the strategies, and the table that chooses among them.

A row of the table says for which devices, kinds and sizes a strategy is taken, and on what
evidence. Rows are tried in order and the last one takes everything. `bench/gpu_session.py` times
every strategy at every size; a row is changed together with the result file that it names.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE = "tile"
"""One or a few tiles per program, partial states merged afterwards; any device and precision."""

STRIP = "strip"
"""Column blocks held while row tiles stream past; maxima stay in registers."""

STRATEGIES = (TILE, STRIP)
AUTO = "auto"

IEEE = "ieee"
"""Kind of a float32 product in full precision: no tensor cores."""

UNLIMITED = math.inf
NOT_MEASURED = "not measured on a GPU"

INTERPRETED_CAPABILITY = (9, 0)
"""What the interpreter passes for: it runs the paths of the devices the kernels were made for."""


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
        """Whether this row speaks of the subject."""
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


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def device_capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a CUDA device; `INTERPRETED_CAPABILITY` of any other."""
    if device.type != "cuda":
        return INTERPRETED_CAPABILITY
    return _capability(torch.cuda.current_device() if device.index is None else device.index)


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


def strategies() -> tuple[str, ...]:
    """Names that `use_strategy` takes."""
    return STRATEGIES


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
    """Give the strips that many programs inside, which must not change any result; for tests."""
    if count < 1:
        raise ValueError(f"programs: expected at least 1, got {count}.")
    with _held(_FORCED_PROGRAMS, count):
        yield


def forced_programs() -> int:
    """What `use_programs` says, 0 outside of it."""
    return _FORCED_PROGRAMS.get()


def choose_strategy(image: Tensor, columns: int, precision: str) -> str:
    """The strategy for image embeddings [N, D] against `columns` texts."""
    kind = product_kind(image.dtype, precision)
    forced = _FORCED_STRATEGY.get()
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
