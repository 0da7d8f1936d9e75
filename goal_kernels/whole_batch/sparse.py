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
from goal_kernels.backends.arguments import DTYPES, address, as_rows, id_addresses, matrix_argument
from goal_kernels.backends.base import Pairing
from goal_kernels.whole_batch.blocks import BLOCK, Batch
from goal_kernels.whole_batch.kinds import Pointwise

SHARE = 0.1
"""Of the matrix, from which on products are cheaper than lists."""

ELEMENTS = 1 << 25
"""Of the matrix, that are listed at a time."""


class Listed(NamedTuple):
    """Elements of S: numbers of their rows and columns [P], by row and column, and S [P]."""

    row: Tensor
    column: Tensor
    similarity: Tensor


class Lister:
    """Lists the elements of a batch that may have a weight, until there are too many."""

    def __init__(self, kind: Pointwise, batch: Batch) -> None:
        self.batch = batch
        infinite = [x.new_full((len(x),), math.inf, dtype=batch.dtype) for x in batch.matrices]
        self.bounds = {1: infinite[0], 0: infinite[1]}
        self.open = batch.rows.is_cpu and native.status()[0]
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
        total, columns = (len(x) for x in self.batch.matrices)
        step = max(BLOCK, ELEMENTS // columns) if self.open else total
        for start in range(0, total, step):
            yield slice(start, min(start + step, total))

    def find(self, part: slice) -> Listed | None:
        """Of the rows `part`; None if there are too many, then and ever after."""
        if not self.open:
            return None
        batch = self.batch
        rows, columns = as_rows(batch.rows[part], "rows"), as_rows(batch.columns, "columns")
        ids = batch.question.row_ids, batch.question.column_ids
        target = torch.where(batch.exists[part], batch.own[part], -1)
        pairing = Pairing(target, None if ids[0] is None else ids[0][part], ids[1])
        room = int(SHARE * len(rows) * len(columns)) + len(columns)
        count = target.new_empty(len(rows))
        index, value = target.new_empty(room), batch.positive.new_empty(room)
        bounds = self.bounds[1][part].contiguous(), self.bounds[0].contiguous()
        found = native.load().above(
            DTYPES[rows.dtype],
            matrix_argument(rows),
            matrix_argument(columns),
            rows.shape[1],
            (target.data_ptr(), *id_addresses(pairing, len(rows), len(columns))),
            tuple(
                address(bound, "bound", rows.dtype, len(x))
                for bound, x in zip(bounds, (rows, columns), strict=True)
            ),
            room,
            (count.data_ptr(), index.data_ptr(), value.data_ptr()),
            torch.get_num_threads(),
            "auto",
        )
        if found < 0:
            self.open = False
            return None
        row = torch.arange(part.start, part.stop, device=target.device).repeat_interleave(count)
        return Listed(row, index[:found], value[:found])
