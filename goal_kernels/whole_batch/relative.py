"""Relative similarities of all anchors with all negatives, for the `_ms` elements.

R- of a negative runs over the others of its anchor (docs/derivation.md, section 12): it follows
from one sum of the anchor, less the negative's own term, so a pass over the matrix takes the sums
first. R+ is looked up among the positives.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels.backends.candidates import NEGATIVE_INFINITY
from goal_kernels.objective import Objective
from goal_kernels.pairs import relative_query
from goal_kernels.weights import RelativePositive, wide
from goal_kernels.whole_batch.blocks import Batch, Side
from goal_kernels.whole_batch.log_sums import LogSums


class RelativeSums:
    """What `between` needs of every anchor; made by a pass over the matrix.

    In float64 where the device has it: beside the largest term, the others may be small.
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self.batch = batch
        kind = objective.pair_element.relative
        self.query = relative_query(kind, batch.positive, objective.epsilon, objective.beta)
        self.of_positives = RelativePositive(
            wide(batch.positive).masked_fill(~batch.exists, math.nan), objective
        )
        self.linear = kind == "linear"
        self.sums = [LogSums(side, narrow=False) for side in batch.sides]
        self.totals = [torch.zeros_like(x.sum) for x in self.sums]
        self.counts = [torch.zeros_like(x.sum) for x in self.sums]
        for part, tile in batch.blocks():
            for rows, piece in batch.pieces(part, tile):
                batch.hide(piece, rows, batch.same(rows))
                for number, side in enumerate(batch.sides):
                    self._add(number, side, piece, rows)
        for sums in self.sums:
            sums.join(batch.share)
        self.logs = [sums.log() for sums in self.sums]
        self.totals = [batch.share.add(x) for x in self.totals]
        self.counts = [batch.share.add(x) for x in self.counts]

    def _add(self, number: int, side: Side, piece: Tensor, rows: slice) -> None:
        outside = (piece < self.query.threshold) | (piece == NEGATIVE_INFINITY)
        over = self.batch.over_limit(piece, rows, side)
        if over is not None:
            outside |= over
        place = side.place(rows)
        self.counts[number][place] += (~outside).sum(dim=side.axis)
        if self.linear:
            above = (wide(piece) - self.query.threshold).masked_fill_(outside, 0.0)
            self.totals[number][place] += above.sum(dim=side.axis)
        else:
            exponent = (wide(piece) * self.query.beta).masked_fill_(outside, NEGATIVE_INFINITY)
            self.sums[number].add(exponent, None, rows)

    def between(
        self, number: int, rows: slice, few: Tensor | None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """R+ and R- as a function of positive and negative, float64, of one piece of the matrix.

        Args: number: of the side. few: which anchors of a side along columns; None: all.
        """
        side, query = self.batch.sides[number], self.query

        def along(values: Tensor) -> Tensor:
            return side.along(values, rows) if few is None else values[few]

        def relate(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
            own = (negative >= query.threshold).to(negative.dtype)
            count = along(self.counts[number])
            if self.linear:
                mean = count * (negative - query.threshold) - along(self.totals[number])
            else:
                log = along(self.logs[number])
                mean = (log - query.beta * negative).exp_().sub_(own)
            mean = mean / (count - own).clamp_(min=1)
            if not self.linear:
                mean.clamp_(min=torch.finfo(self.batch.dtype).tiny)
            mean = torch.where(count > own, mean, 0.0)
            return self.of_positives(positive, negative), mean

        return relate
