"""Logarithms of sums of exponentials over a pass through the matrix, of the anchors of one side."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.candidates import NEGATIVE_INFINITY
from goal_kernels.weights import wide
from goal_kernels.whole_batch.blocks import Side
from goal_kernels.whole_batch.shares import Share


class LogSums:
    """Log-sums of the anchors of a side, piece by piece.

    narrow: whether exponents are small enough to be summed without their largest.
    """

    def __init__(self, side: Side, narrow: bool) -> None:
        self.side, self.narrow = side, narrow
        self.most = wide(torch.full_like(side.positive[0], NEGATIVE_INFINITY))
        self.sum = torch.zeros_like(self.most)

    def add(self, exponent: Tensor, powers: Tensor | None, rows: slice) -> None:
        """exponent: [rows, N], -inf for none. powers: its exponentials, where they are narrow."""
        side, place = self.side, self.side.place(rows)
        if powers is not None:
            self.sum[place] += wide(powers.sum(dim=side.axis))
            return
        most = exponent.amax(dim=side.axis)
        shift = torch.where(most == NEGATIVE_INFINITY, 0.0, most)
        shifted = exponent - (shift[:, None] if side.axis == 1 else shift[None])
        self.add_sums(most[None], shifted.exp_().sum(dim=side.axis)[None], rows)

    def add_sums(self, most: Tensor, sums: Tensor, rows: slice) -> None:
        """most, sums: [parts, anchors], of parts of the negatives; see `_merged`."""
        place = self.side.place(rows)
        self.most[place], self.sum[place] = _merged(
            torch.cat([self.most[place][None], wide(most)]),
            torch.cat([self.sum[place][None], wide(sums)]),
        )

    def join(self, share: Share) -> None:
        """Take in what the other processes have summed."""
        most, sums = share.gather(self.most), share.gather(self.sum)
        if self.narrow:
            self.sum = sums.sum(dim=0)
        else:
            self.most, self.sum = _merged(most, sums)

    def log(self) -> Tensor:
        """[anchors], -inf of none."""
        return self.sum.log() if self.narrow else self.most + self.sum.log()


def _merged(most: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The largest exponents [A] of some parts of the negatives, and the sums [A] of all.

    Args: most, sums: [parts, A]; the sum of a part is over the exponential of its largest.
    """
    largest = most.amax(dim=0)
    shrink = torch.where(most == NEGATIVE_INFINITY, 0.0, (most - largest).exp())
    return largest, (sums * shrink).sum(dim=0)
