"""The weight stage: from mined similarities to the coefficients of the gradient rows.

Works on [B] vectors only, in plain torch, on every backend, in float64 where the device has it:
prefix sums over a large batch need its digits, products of a huge and a tiny weight its range. The
`cpu` backend has a twin for the built-in elements, csrc/cpu/weigh.cpp. Equation numbers refer to
docs/derivation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import Mined, Weighted
from goal_kernels.objective import Objective

DIRECTIONS = ("both", "i2t", "t2i")

SUMMED = 1024
"""Numbers of a vector that are summed one after the other."""


class Anchors(NamedTuple):
    """One direction, [B] each: similarities, which anchors have a negative, and the mined sums."""

    positive: Tensor
    negative: Tensor
    valid: Tensor
    relative_sum: Tensor
    relative_count: Tensor


def wide(values: Tensor) -> Tensor:
    """float64 where the device has it."""
    return values if values.device.type == "mps" else values.double()


class RelativePositive:
    """R+ of any anchors in O(log B) each: sort, prefix sums, look-up (eq. 5).

    Args: positive: [P], similarities of all pairs, which R+ runs over; float64, since a prefix sum
        in float32 loses digits.
    """

    def __init__(self, positive: Tensor, objective: Objective) -> None:
        self.objective = objective
        # NaN compares false, so it joins no set of R+; infinity is beyond every finite limit.
        self.pool = pool = positive.nan_to_num(math.inf, math.inf, -math.inf).sort().values
        start = pool.new_zeros(2, 1)
        self.linear = objective.pair_element.relative == "linear"
        if self.linear:
            self.sums = torch.cat([start, _scanned(torch.cumsum, pool, pool)], dim=1)[0]
            return
        # Logarithms of the sums of exp(-alpha q) over the first k and over all from the k-th on.
        decay = -objective.alpha * pool
        sums = _scanned(torch.logcumsumexp, decay, decay.flip(0))
        self.below, above = torch.cat([start - math.inf, sums], dim=1)
        self.above = above.flip(0)

    def __call__(self, positive: Tensor, negative: Tensor) -> Tensor:
        """R+ of anchors whose own positive and negative these are, of shapes that broadcast."""
        pool = self.pool
        limit = negative + self.objective.epsilon
        within = torch.searchsorted(pool, limit, right=True)
        within = torch.where(limit.isnan(), 0, within)  # no comparison with NaN holds
        own = torch.searchsorted(pool, positive).clamp(max=len(pool) - 1)
        if self.linear:
            total = within * positive - self.sums[within]
            # Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
            last = torch.searchsorted(pool, positive, right=True)
            count = within - (torch.minimum(last, within) - torch.minimum(own, within))
        else:
            # The anchor's own term is stepped over, not subtracted: beside it the others may be
            # too small to be seen.
            scaled = self.objective.alpha * positive
            total = torch.exp(scaled + self.below[torch.minimum(own, within)])
            rest = self.above[own + 1]
            higher = torch.exp(scaled + rest) * -torch.expm1(self.above[within] - rest)
            total = total + torch.where(within > own + 1, higher, 0.0)
            count = within - (within > own).to(within.dtype)
        mean = total / count.clamp(min=1)
        return torch.where(count > 0, mean, 0.0)


def _scanned(scan: Callable[..., Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Prefix sums of two vectors, [2, B]. Of two at a time: CUDA scans a single one in no order."""
    return scan(torch.stack([first, second]), 1)


def _relative_negative(anchors: Anchors, kind: str) -> Tensor:
    """R- from the sums that mining returned; an empty set gives 0 (eq. 6). [B]"""
    mean = wide(anchors.relative_sum) / anchors.relative_count.clamp(min=1)
    if kind == "exponential":
        # What is too small for the dtype of its sum counts as the smallest normal number.
        mean = mean.clamp(min=torch.finfo(anchors.relative_sum.dtype).tiny)
    return torch.where(anchors.relative_count > 0, mean, 0.0)


def ordered_sum(values: Tensor) -> Tensor:
    """Sum of a vector, 0-d, in an order that does not depend on the number of threads.

    torch shares a long sum out among threads, but never one of several short ones.
    """
    whole = len(values) // SUMMED * SUMMED
    runs = values[:whole].view(-1, SUMMED).sum(dim=1)
    return torch.cat([runs, values[whole:]]).sum()


def weigh_anchors(objective: Objective, anchors: Anchors) -> tuple[Tensor, Tensor, Tensor]:
    """a = T P+, b = T P- and the value of every anchor (eq. 7, 8), 0 where not valid: 3 x [B]."""
    p = wide(anchors.positive)
    # A finite stand-in: no formula of a user's has to cope with the -inf of an absent negative.
    n = torch.where(anchors.valid, wide(anchors.negative), p)
    triplet, pair = objective.triplet_element, objective.pair_element
    relative = {}
    if pair.relative != "none":
        relative["relative_positive"] = RelativePositive(p, objective)(p, n)
        relative["relative_negative"] = _relative_negative(anchors, pair.relative)
    weight = triplet.formula(positive=p, negative=n, **objective.values_for(triplet))
    positive_part, negative_part = pair.formula(
        positive=p, negative=n, **relative, **objective.values_for(pair)
    )
    potential = objective.potential if objective.reports_potential else None
    value = n - p if potential is None else potential(p, n)
    a, b = weight * positive_part, weight * negative_part
    zero = torch.zeros_like(p)
    return (
        torch.where(anchors.valid, a, zero),
        torch.where(anchors.valid, b, zero),
        torch.where(anchors.valid, value, zero),
    )


def weigh(
    objective: Objective, positive: Tensor, mined: Mined, direction: str = "both"
) -> Weighted:
    """Turn what was mined from a square batch into the value and the gradient coefficients.

    Args:
        positive: [B], similarity of each pair, which is the positive of both its anchors.
        mined: see `backends.base.Mined`.
        direction: one of DIRECTIONS; the anchors of the other direction get weight 0.
    """
    rows = Anchors(positive, mined.row_value, mined.row_index >= 0, mined.row_sum, mined.row_count)
    columns = Anchors(
        positive,
        mined.column_value,
        mined.column_index >= 0,
        mined.column_sum,
        mined.column_count,
    )
    none = torch.zeros_like(wide(positive))
    row_terms = column_terms = (none, none, none)
    if direction != "t2i":
        row_terms = weigh_anchors(objective, rows)
    if direction != "i2t":
        column_terms = weigh_anchors(objective, columns)
    value = ordered_sum(row_terms[2] + column_terms[2])
    weights = row_terms[0] + column_terms[0], row_terms[1], column_terms[1]
    return Weighted(*(part.to(positive.dtype) for part in (value, *weights)))
