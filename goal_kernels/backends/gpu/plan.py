"""How a call is mined on a GPU: the strategies, and the choice among them.

`python -m tools.gpu_session` times every strategy at every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.gpu.records import MiningQuery
from goal_kernels.backends.gpu.runtime import multiprocessors

TILE = "tile"
"""One or a few tiles per program, partial results merged afterwards; any device and precision."""

STRIP = "strip"
"""Column blocks held while row tiles stream past; maxima stay in registers."""

SCREEN = "screen"
"""float32 in full without sums: bfloat16 finds the candidates, float32 decides among them."""

HOPPER = "hopper"
"""The hand-written kernel for compute capability 9.0; by name until a GPU has verified it."""

STRATEGIES = (TILE, STRIP, SCREEN, HOPPER)
AUTO = "auto"

SMALL_BATCH = 2048
"""Up to here launches, not products, take the time of a step (gpu.md, section 1)."""

_FORCED_STRATEGY: ContextVar[str] = ContextVar("strategy", default=AUTO)
_FORCED_PROGRAMS: ContextVar[int] = ContextVar("programs", default=0)
_FORCED_MEMBERS: ContextVar[int] = ContextVar("members", default=0)


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
    """Mine by one strategy inside, whatever is usual; for measuring and for tests.

    A call that it cannot serve raises NotImplementedError. Raises: ValueError for unknown names.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {name!r}.")
    with _held(_FORCED_STRATEGY, name):
        yield


@contextmanager
def use_programs(count: int) -> Iterator[None]:
    """Give strips, screening and the Hopper kernel that many programs inside; for tests.

    Results must not change. A program of the Hopper kernel is a cluster of thread blocks.
    """
    if count < 1:
        raise ValueError(f"programs: expected at least 1, got {count}.")
    with _held(_FORCED_PROGRAMS, count):
        yield


@contextmanager
def use_members(count: int) -> Iterator[None]:
    """Let that many thread blocks, 1 or 2, share images in the Hopper kernel; to compare them."""
    if count not in (1, 2):
        raise ValueError(f"members: expected 1 or 2, got {count}.")
    with _held(_FORCED_MEMBERS, count):
        yield


def forced_members() -> int:
    """What `use_members` says, 0 outside of it."""
    return _FORCED_MEMBERS.get()


def forced_programs() -> int:
    """What `use_programs` says, 0 outside of it."""
    return _FORCED_PROGRAMS.get()


def usual_programs(device: torch.device) -> int:
    """As many programs as the device runs at a time, or what `use_programs` says."""
    return forced_programs() or multiprocessors(device)


def choose_strategy(image: Tensor, columns: int, query: MiningQuery, asked: str = AUTO) -> str:
    """The strategy for image embeddings [N, D] against `columns` texts.

    asked: the one strategy of the backend, AUTO for the usual one. That is not measured on a GPU:
    strips have the fewest instructions per element in the machine code, but a small batch is a few
    tiles per multiprocessor; without tensor cores the product takes so long that any epilogue
    hides, and two products on tensor cores are far ahead of it.

    Raises: NotImplementedError when the one asked for cannot serve the query.
    """
    tensor_cores = image.dtype != torch.float32 or query.precision != "highest"
    screened = not tensor_cores and query.kind == "none"
    forced = _FORCED_STRATEGY.get() if asked == AUTO else asked
    if forced == AUTO:
        if image.shape[0] * columns <= SMALL_BATCH**2:
            return TILE
        return STRIP if tensor_cores else SCREEN if screened else TILE
    if forced == SCREEN and not screened:
        raise NotImplementedError(
            f"strategy {forced!r} decides float32 pairs at precision 'highest' and adds no sums; "
            "use the strategy 'strip' on tensor cores, 'tile' for relative sums in full precision"
        )
    if forced in (STRIP, HOPPER) and not tensor_cores:
        raise NotImplementedError(
            f"strategy {forced!r} multiplies on tensor cores, which have no full float32 "
            "precision; use precision='high' or 'medium', or the strategy 'tile'"
        )
    return forced
