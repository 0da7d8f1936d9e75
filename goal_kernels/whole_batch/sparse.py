"""The few similarities that have a weight, listed by native code instead of a block of the matrix.

A hinge below its margin weighs exactly 0. What may weigh more is found by a product of rounded
values where the processor has one, and decided in full precision (csrc/cpu/above.h).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.arguments import (
    address,
    addresses,
    as_rows,
    matrix_arguments,
    pairing_addresses,
)
from goal_kernels.backends.base import Pairing, accumulate_dtype
from goal_kernels.whole_batch.blocks import BLOCK, Batch
from goal_kernels.whole_batch.kinds import Pointwise

SHARE = 0.1
"""Of the matrix, from which on products are cheaper than lists."""

ELEMENTS = 1 << 24
"""Of the matrix, that are listed at a time."""

LEAST = 1 << 18
"""Elements of a matrix from which on lists are tried."""


class Listed(NamedTuple):
    """Elements of some rows of S: numbers of their rows, counted from the first, and columns [P].

    similarity: [P], S, or that of rounded rows where the sign of the weight does not depend on it.
    """

    row: Tensor
    column: Tensor
    similarity: Tensor


class Lister:
    """Lists the elements of a batch that may have a weight, until there are too many.

    Args: exact: whether their similarities have to be; else only the decision which have a weight.
    """

    def __init__(self, kind: Pointwise, batch: Batch, exact: bool) -> None:
        self.batch, self.exact = batch, exact
        large = len(batch.rows) * len(batch.columns) >= LEAST
        self.open = large and batch.rows.is_cpu and native.status()[0]
        if not self.open:
            return
        self.rows, self.columns = batch.rows.to(batch.dtype), batch.columns.to(batch.dtype)
        both = {1: self.rows, 0: self.columns}
        self.bounds = {axis: x.new_full((len(x),), math.inf) for axis, x in both.items()}
        for side in batch.sides:
            floor = kind.floor(side.positive)
            if floor is None:
                self.open = False
                return
            bound = floor.amin(dim=0)
            # What is left out as a false negative is counted, also where it would weigh nothing.
            self.bounds[side.axis] = bound if side.limit is None else bound.minimum(side.limit)

    def parts(self) -> Iterator[slice]:
        """Rows to ask about at a time."""
        part, columns = self.batch.part, len(self.batch.columns)
        step = max(BLOCK, ELEMENTS // columns if self.open else len(self.batch.rows))
        for start in range(part.start, part.stop, step):
            yield slice(start, min(start + step, part.stop))

    def find(self, part: slice) -> Listed | None:
        """Of the rows `part`; None if there are too many, then and ever after."""
        if not self.open:
            return None
        batch = self.batch
        rows, columns = self.rows[part], self.columns
        ids = batch.question.row_ids, batch.question.column_ids
        pairing = Pairing(batch.target[part], None if ids[0] is None else ids[0][part], ids[1])
        bounds = self.bounds[1][part].contiguous(), self.bounds[0].contiguous()
        room = int(SHARE * len(rows) * len(columns))
        found = above(rows, columns, pairing, bounds, room, exact=self.exact)
        self.open = found is not None
        return found


def above(
    rows: Tensor,
    columns: Tensor,
    pairing: Pairing,
    bounds: tuple[Tensor, Tensor],
    room: int,
    *,
    exact: bool,
    isa: str = "auto",
) -> Listed | None:
    """What reaches the bound of its row or its column.

    Args:
        rows, columns: [R, D], [N, D] of one dtype on the CPU. pairing: of rows, with a target.
        bounds: [R] and [N]. room: how many elements there may be, else the answer is None.
        exact: see `Lister`. isa: the instruction set.
    """
    rows, columns = as_rows(rows, columns, ("rows", "columns"))
    sizes = len(rows), len(columns)
    dtype = accumulate_dtype(rows.dtype)
    row, column = rows.new_empty(2, room, dtype=torch.int64)
    value = rows.new_empty(room, dtype=dtype)
    found = native.load().above(
        *matrix_arguments(rows, columns),
        pairing_addresses(pairing, *sizes),
        tuple(address(x, "bounds", dtype, size) for x, size in zip(bounds, sizes, strict=True)),
        exact,
        room,
        addresses(row, column, value),
        torch.get_num_threads(),
        isa,
    )
    if found < 0:
        return None
    return Listed(row[:found], column[:found], value[:found])


def add_listed(
    rows: Tensor,
    columns: Tensor,
    found: Listed,
    weight: Tensor,
    gradients: tuple[Tensor, Tensor],
    isa: str = "auto",
) -> None:
    """Add to gradients what dL/dS of listed elements, weight [P], makes of them.

    Args:
        rows, columns: [R, D], [N, D]. gradients: of both, contiguous, in the accumulate dtype.
    """
    rows, columns = as_rows(rows, columns, ("rows", "columns"))
    dtype = accumulate_dtype(rows.dtype)
    native.load().add_listed(
        *matrix_arguments(rows, columns),
        len(weight),
        (
            *addresses(found.row, found.column),
            address(weight, "weight", dtype, len(found.row)),
        ),
        tuple(
            address(x.view(-1), "gradients", dtype, like.numel())
            for x, like in zip(gradients, (rows, columns), strict=True)
        ),
        torch.get_num_threads(),
        isa,
    )
