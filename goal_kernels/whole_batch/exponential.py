"""Losses of sums of exponentials over the negatives of an anchor: four products a step.

The first pass over the matrix takes the logarithms of the sums, from which vectors follow; the
second makes the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.candidates import NEGATIVE_INFINITY
from goal_kernels.weights import ordered_sum, wide
from goal_kernels.whole_batch.blocks import Batch, Gradients
from goal_kernels.whole_batch.fused import fused_epilogues
from goal_kernels.whole_batch.kinds import Exponential, Loss, Sums
from goal_kernels.whole_batch.log_sums import LogSums
from goal_kernels.whole_batch.pointwise import of_pairs

NARROW = 40.0
"""Largest |exponent| whose exponentials are summed as they are: any sum of them is in float32."""


def _offset(derivative: Tensor, log: Tensor, dtype: torch.dtype) -> Tensor:
    """What, added to an exponent, makes the logarithm of its weight, -inf for none; [A].

    Args: derivative: of the loss by a log-sum, >= 0.
    """
    none = (derivative <= 0) | (log == NEGATIVE_INFINITY)
    return torch.where(none, NEGATIVE_INFINITY, derivative.log() - log).to(dtype)


def run_exponential(kind: Exponential, batch: Batch, gradients: Gradients | None) -> Tensor:
    """The value of the loss, 0-d, summed over anchors; its gradients are added to `gradients`.

    Gradients of a kind with a scale are by scale S. Both of this process's share.
    """
    plan = _Plan(kind, batch)
    plan.sum_up()
    value = plan.weigh()
    if gradients is not None:
        plan.add_gradients(gradients)
    return value if batch.share.first else torch.zeros_like(value)


class _Exponents(NamedTuple):
    """Of a piece [rows, N], -inf for none.

    negative: of negatives. overs: bool, which of them the limits of each side leave out, None:
    nothing. positive: of positives beside the pairs; None unless equal ids are positives.
    """

    negative: Tensor
    overs: list[Tensor | None]
    positive: Tensor | None

    def left(self, side: int) -> Tensor:
        """bool, the negatives of a side."""
        left = self.negative != NEGATIVE_INFINITY
        over = self.overs[side]
        return left if over is None else left & ~over


class _Plan:
    """One loss of one batch: `sum_up`, `weigh`, `add_gradients`."""

    def __init__(self, kind: Exponential, batch: Batch) -> None:
        self.kind, self.batch = kind, batch
        self.narrow = self._narrow()
        self.fused = fused_epilogues(kind, batch)
        self.no_limits: list[Tensor | None] = [None] * len(batch.sides)

        def sums() -> list[LogSums]:
            return [LogSums(side, self.narrow) for side in batch.sides]

        self.negatives, self.positives = sums(), sums()
        self.totals = [torch.zeros_like(x.sum) for x in self.negatives]
        self.counts = [torch.zeros_like(x.sum) for x in self.negatives]

    def _narrow(self) -> bool:
        """Whether all exponents are small; looked at on a CPU alone, a GPU would be waited for."""
        batch = self.batch
        if not batch.rows.is_cpu:
            return False
        longest = [
            torch.linalg.vector_norm(x, dim=1, dtype=batch.dtype).amax()
            for x in (batch.rows, batch.columns)
        ]
        reach = longest[0] * longest[1]
        scores = reach * torch.linspace(-1, 1, 9, dtype=reach.dtype, device=reach.device)
        most = torch.stack([self.kind.negative(scores), self.kind.positive(scores)]).abs().amax()
        return bool(most <= NARROW)

    def _exponents(self, piece: Tensor, rows: slice) -> _Exponents:
        batch = self.batch
        same = batch.same(rows)
        negative = self.kind.negative(piece)
        batch.hide(negative, rows, same)
        positive = None
        if same is not None and self.kind.by_ids:
            positive = self.kind.positive(piece).masked_fill_(~same, NEGATIVE_INFINITY)
            batch.fill_own(positive, rows, NEGATIVE_INFINITY)
        hidden = negative == NEGATIVE_INFINITY if batch.question.limited else None
        overs = [batch.over_limit(piece, rows, side, hidden) for side in batch.sides]
        return _Exponents(negative, overs, positive)

    def sum_up(self) -> None:
        """The first pass."""
        for part, tile in self.batch.blocks():
            if self.fused is not None:
                parts = self.fused.log_sums(part, tile)
                for sums, (most, total) in zip(self.negatives, parts, strict=True):
                    sums.add_sums(most, total, part)
                continue
            for rows, piece in self.batch.pieces(part, tile):
                found = self._exponents(piece, rows)
                self._add(self.negatives, found.negative, found.overs, rows)
                if found.positive is not None:
                    self._add(self.positives, found.positive, self.no_limits, rows)
                for side, over in zip(self.batch.sides, found.overs, strict=True):
                    if over is not None:
                        self.batch.count_skipped(over, rows, side)
                if self.kind.smoothing:
                    self._add_totals(piece, found, rows)
        share = self.batch.share
        for sums in (*self.negatives, *self.positives):
            sums.join(share)
        self.totals = [share.add(x) for x in self.totals]
        self.counts = [share.add(x) for x in self.counts]

    def _add(
        self, sums: list[LogSums], exponent: Tensor, overs: list[Tensor | None], rows: slice
    ) -> None:
        powers = exponent.exp() if self.narrow else None
        for each, over in zip(sums, overs, strict=True):
            if over is None:
                each.add(exponent, powers, rows)
                continue
            left = exponent.masked_fill(over, NEGATIVE_INFINITY)
            each.add(left, left.exp() if self.narrow else None, rows)

    def _add_totals(self, piece: Tensor, found: _Exponents, rows: slice) -> None:
        logit = -self.kind.positive(piece)
        for number, side in enumerate(self.batch.sides):
            left, place = found.left(number), side.place(rows)
            self.totals[number][place] += wide(torch.where(left, logit, 0.0).sum(dim=side.axis))
            self.counts[number][place] += left.sum(dim=side.axis)

    def weigh(self) -> Tensor:
        """The vectors between the passes. Returns: the value of the loss, 0-d."""
        batch, kind = self.batch, self.kind
        dtype = batch.positive.dtype
        # Finite where there is no pair, so that nothing is NaN there.
        exponent = kind.positive(torch.where(batch.exists, wide(batch.positive), 0.0))
        self.push, self.pull, self.even, values = [], [], [], []
        self.by_pair = torch.zeros_like(exponent)
        for number, side in enumerate(batch.sides):
            log, more = self.negatives[number].log(), self.positives[number].log()
            sums = Sums(log, self.totals[number], self.counts[number])
            missing = side.pairs < 0
            own = positive = exponent[side.pairs.clamp(min=0)]
            if kind.by_ids:
                own = own.masked_fill(missing, NEGATIVE_INFINITY)
                total = torch.cat([own, more[None]]).logsumexp(dim=0)
                missing = total == NEGATIVE_INFINITY
                positive = total.masked_fill(missing, 0.0)
            loss = Loss(*(x.masked_fill(missing, 0.0) for x in kind.loss(sums, positive)))
            values.append(loss.value.flatten())
            by_own = loss.by_positive
            if kind.by_ids:
                self.pull.append(_offset(by_own, positive, dtype))
                by_own = by_own * (own - positive).exp()
            self.by_pair += of_pairs(batch, side, by_own)
            slots = (-1, len(log))
            self.push.append(_offset(loss.by_log.view(slots).sum(dim=0), log, dtype))
            self.even.append(loss.by_total.view(slots).sum(dim=0).to(dtype))
        return ordered_sum(torch.cat(values))

    def add_gradients(self, gradients: Gradients) -> None:
        """The second pass."""
        batch, kind = self.batch, self.kind
        for part, tile in batch.blocks():
            if self.fused is not None:
                self.fused.weigh_exponential(part, tile, self.push)
            else:
                for rows, piece in batch.pieces(part, tile):
                    self._weigh_piece(piece, rows)
            batch.count_active(tile)
            gradients.add(part, tile)
        slope = kind.positive_slope(wide(batch.positive))
        if batch.share.first:
            gradients.add_pairs(self.by_pair * slope)

    def _weigh_piece(self, piece: Tensor, rows: slice) -> None:
        """Turn similarities [rows, N] into their weights, in place, in plain torch."""
        found = self._exponents(piece, rows)
        weight = self._weights(found.negative, found.overs, rows, self.push)
        weight *= self.kind.negative_slope(piece)
        if found.positive is not None:
            more = self._weights(found.positive, self.no_limits, rows, self.pull)
            weight += more * self.kind.positive_slope(piece)
        if self.kind.smoothing:
            for number, (side, value) in enumerate(zip(self.batch.sides, self.even, strict=True)):
                weight += torch.where(found.left(number), side.along(value, rows), 0.0)
        piece.copy_(weight)

    def _weights(
        self, exponent: Tensor, overs: list[Tensor | None], rows: slice, offsets: list[Tensor]
    ) -> Tensor:
        """Derivatives by the exponents of a piece, [rows, N]."""
        sides = self.batch.sides
        if self.narrow and all(over is None for over in overs):
            factor = sum(s.along(x, rows).exp() for s, x in zip(sides, offsets, strict=True))
            return exponent.exp().mul_(factor)
        total = None
        for side, offset, over in zip(sides, offsets, overs, strict=True):
            weight = (exponent + side.along(offset, rows)).exp_()
            if over is not None:
                weight.masked_fill_(over, 0.0)
            total = weight if total is None else total.add_(weight)
        assert total is not None
        return total
