"""Processes that each compute a share of the matrix of one batch, which all of them hold.

Every process passes over an equal part of the rows. What a pass adds up over rows is added up over
processes too, always in the order of their ranks where it is vectors; gradient rows by one sum of
[N, D] and [M, D]. Within `sharing` a loss over all negatives does so; elsewhere it is alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup


class Share:
    """One process alone."""

    first = True
    """Whether this process adds what is to be added once."""

    def part(self, rows: int) -> slice:
        """Its rows of the matrix."""
        return slice(0, rows)

    def gather(self, values: Tensor) -> Tensor:
        """[processes, …], values of the same shape of every process, by rank."""
        return values[None]

    def add(self, values: Tensor) -> Tensor:
        """Sum over processes of values of the same shape, in one order."""
        return self.gather(values).sum(dim=0)

    def add_large(self, values: Tensor) -> None:
        """The same in place without a copy of each, in the order of the collective."""


class _SharedAmong(Share):
    """One of several processes."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        self.first = self.rank == 0

    def part(self, rows: int) -> slice:
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def gather(self, values: Tensor) -> Tensor:
        all_values = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(all_values, values.contiguous(), group=self.group)
        return torch.stack(all_values)

    def add_large(self, values: Tensor) -> None:
        distributed.all_reduce(values, group=self.group)


_ALONE = Share()
_current: ContextVar[Share] = ContextVar("goal_kernels_share", default=_ALONE)


def current_share() -> Share:
    """The share of this process in the batch that is being computed."""
    return _current.get()


@contextmanager
def sharing(group: ProcessGroup | None = None) -> Iterator[None]:
    """Share losses over all negatives out among the processes of a group, the default when None.

    Every process of the group calls the same losses within, on the same gathered batch
    (`distributed.gather_pairs`). Without a group that is initialised nothing changes.
    """
    known = distributed.is_available() and distributed.is_initialized()
    several = known and distributed.get_world_size(group) > 1
    if not several and torch.compiler.is_compiling():  # which cannot trace a ContextVar
        yield
        return
    token = _current.set(_SharedAmong(group) if several else _ALONE)
    try:
        yield
    finally:
        _current.reset(token)
