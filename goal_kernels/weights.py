"""The weight stage: from mined similarities to the coefficients of the gradient rows.

Works on [B] vectors only, in plain torch, on every backend. The `cpu` backend has a twin for the
built-in elements, csrc/cpu/weigh.cpp. Equation numbers refer to docs/derivation.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import Mined, Weighted
from goal_kernels.objective import Objective

DIRECTIONS = ("both", "i2t", "t2i")


class _Anchors(NamedTuple):
    """One direction, [B] each: similarities, which anchors have a negative, and the mined sums."""

    positive: Tensor
    negative: Tensor
    valid: Tensor
    relative_sum: Tensor
    relative_count: Tensor


def _wide(values: Tensor) -> Tensor:
    """float64 where the device has it: prefix sums over a large batch need the digits."""
    return values if values.device.type == "mps" else values.double()


def relative_positive(positive: Tensor, negative: Tensor, objective: Objective) -> Tensor:
    """R+ of every anchor in O(B log B): sort, prefix sums, look-up (eq. 5). [B]

    Args: positive, negative: [B], similarities of each anchor's positive and hardest negative.
    """
    p = _wide(positive)
    # No comparison with NaN holds, so it is in no one's set; infinity is beyond every finite limit.
    pool = p.nan_to_num(math.inf, math.inf, -math.inf).sort().values
    limit = _wide(negative) + objective.epsilon
    within = torch.searchsorted(pool, limit, right=True)
    within = torch.where(limit.isnan(), 0, within)  # no comparison with NaN holds
    if objective.pair_element.relative == "linear":
        sums = torch.cat([pool.new_zeros(1), pool.cumsum(0)])
        total = within * p - sums[within]
        # Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
        first = torch.searchsorted(pool, p)
        last = torch.searchsorted(pool, p, right=True)
        count = within - (torch.minimum(last, within) - torch.minimum(first, within))
    else:
        alpha = objective.alpha
        base = pool[0]  # the smallest, so that no exponential of the prefix sum exceeds 1
        sums = torch.cat([pool.new_zeros(1), torch.exp(-alpha * (pool - base)).cumsum(0)])
        own = (p <= limit).to(p.dtype)
        total = torch.exp(alpha * (p - base)) * sums[within] - own
        count = within - own.to(within.dtype)
    mean = total / count.clamp(min=1)
    return torch.where(count > 0, mean, 0.0).to(positive.dtype)


def _relative_negative(anchors: _Anchors) -> Tensor:
    """R- from the sums that mining returned; an empty set gives 0 (eq. 6). [B]"""
    mean = anchors.relative_sum / anchors.relative_count.clamp(min=1)
    return torch.where(anchors.relative_count > 0, mean, 0.0)


def _direction(objective: Objective, anchors: _Anchors) -> tuple[Tensor, Tensor, Tensor]:
    """a = T P+, b = T P- and the value of every anchor (eq. 7, 8), 0 where not valid: 3 x [B]."""
    p = anchors.positive
    # A finite stand-in: no formula of a user's has to cope with the -inf of an absent negative.
    n = torch.where(anchors.valid, anchors.negative, p)
    triplet, pair = objective.triplet_element, objective.pair_element
    relative = {}
    if pair.relative != "none":
        relative["relative_positive"] = relative_positive(p, n, objective)
        relative["relative_negative"] = _relative_negative(anchors)
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
    rows = _Anchors(positive, mined.row_value, mined.row_index >= 0, mined.row_sum, mined.row_count)
    columns = _Anchors(
        positive,
        mined.column_value,
        mined.column_index >= 0,
        mined.column_sum,
        mined.column_count,
    )
    none = torch.zeros_like(positive)
    row_terms = column_terms = (none, none, none)
    if direction != "t2i":
        row_terms = _direction(objective, rows)
    if direction != "i2t":
        column_terms = _direction(objective, columns)
    value = row_terms[2].sum() + column_terms[2].sum()
    return Weighted(value, row_terms[0] + column_terms[0], row_terms[1], column_terms[1])
