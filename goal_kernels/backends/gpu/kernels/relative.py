# mypy: allow-untyped-defs, allow-untyped-decorators
"""R+, the relative similarity of positives (docs/derivation.md, eq. 5).

Of anchor i with limit n_i + epsilon: the mean over the other positives p_k <= limit of p_i - p_k
(linear, without those equal to p_i) or of exp(alpha (p_i - p_k)) (exponential); 0 if there are
none. NaN compares false, so it joins no R+ set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.gpu.configs import KIND_CODES, LAUNCH_OPTIONS, PREFIX_CHUNK, WARPS
from goal_kernels.backends.gpu.kernels.common import COUNTS, LINEAR
from goal_kernels.backends.gpu.kernels.gather import sum_pair

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def mean(total, count):
    """total / count, 0 where nothing was counted; float32 and int32 of one shape."""
    return tl.where(count > 0, tl.div_rn(total, tl.maximum(count, 1).to(tl.float32)), 0.0)


@triton.jit
def dense_relative(
    positives,
    positive,
    anchor,
    row_limit,
    column_limit,
    batch,
    alpha,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """R+ of both directions from all pairs of positives: 2 x float32 [BLOCK].

    positives: pointer to float32 [batch]; positive, anchor, row_limit, column_limit: [BLOCK]. The
    directions differ in their limits alone and share every exponential.
    """
    row_total = tl.zeros([BLOCK, CHUNK], tl.float32)
    column_total = row_total
    row_count = tl.zeros([BLOCK, CHUNK], tl.int32)
    column_count = row_count
    slope = alpha * LOG2_E
    for start in range(0, batch, CHUNK):
        k = start + tl.arange(0, CHUNK)
        other = tl.load(positives + k, mask=k < batch, other=float("nan"))[None, :]
        gap = positive[:, None] - other
        if KIND == LINEAR:
            term = gap
            counted = gap != 0.0
        else:
            term = tl.exp2(slope * gap)
            counted = k[None, :] != anchor[:, None]
        in_row = counted & (other <= row_limit[:, None])
        in_column = counted & (other <= column_limit[:, None])
        row_total = tl.where(in_row, row_total + term, row_total)
        column_total = tl.where(in_column, column_total + term, column_total)
        row_count = tl.where(in_row, row_count + 1, row_count)
        column_count = tl.where(in_column, column_count + 1, column_count)
    row_counted, column_counted = sum_pair(row_count, column_count)
    row = mean(tl.sum(row_total, 1), row_counted)
    return row, mean(tl.sum(column_total, 1), column_counted)


@triton.jit
def count_sorted(pool, bound, length, steps, INCLUSIVE: tl.constexpr):
    """How many of the ascending float32 pool [length], NaN last, are below bound (or equal): int32.

    steps: binary digits of length.
    """
    found = tl.zeros(bound.shape, tl.int32)
    for step in range(steps):
        probe = found + (1 << (steps - 1 - step))
        value = tl.load(pool + probe - 1, mask=probe <= length, other=float("inf")).to(tl.float64)
        below = value < bound
        if INCLUSIVE:
            below = value <= bound
        found = tl.where((probe <= length) & below, probe, found)
    return found


@triton.jit
def sorted_relative(pool, prefix, positive, limit, length, steps, alpha, KIND: tl.constexpr):
    """R+ of one direction by look-up: float32, the shape of positive.

    pool: float32 [length], the positives ascending, NaN last; prefix: see `prefix_kernel`.
    """
    p = positive.to(tl.float64)
    within = count_sorted(pool, limit.to(tl.float64), length, steps, True)
    below = tl.load(prefix + within - 1, mask=within > 0, other=0.0)
    if KIND == LINEAR:
        total = within * p - below
        last = tl.minimum(count_sorted(pool, p, length, steps, True), within)
        first = tl.minimum(count_sorted(pool, p, length, steps, False), within)
        count = within - (last - first)
    else:
        own = (positive <= limit).to(tl.int32)
        total = tl.exp(alpha * (p - tl.load(pool))) * below - own
        count = within - own
    return mean(total.to(tl.float32), count)


@triton.jit(do_not_specialize=COUNTS)
def prefix_kernel(pool, prefix, length, alpha, KIND: tl.constexpr, CHUNK: tl.constexpr):
    """Prefix sums of the ascending float32 pool [length], float64 [length], by one program.

    Of the positives themselves (linear) or of exp(-alpha (q - pool[0])) (exponential), so that no
    term exceeds 1. One order of additions: a scan of a whole device, as torch's, has none.
    """
    least = tl.load(pool).to(tl.float64)
    before = tl.zeros([], tl.float64)
    for start in range(0, length, CHUNK):
        k = start + tl.arange(0, CHUNK)
        terms = tl.load(pool + k, mask=k < length, other=0.0).to(tl.float64)
        if KIND != LINEAR:
            terms = tl.exp(alpha * (least - terms))
        terms = tl.where(k < length, terms, 0.0)
        tl.store(prefix + k, before + tl.cumsum(terms, 0), mask=k < length)
        before += tl.sum(terms, 0)


class Pool(NamedTuple):
    """The positives of a batch as `sorted_relative` looks them up, [B] each.

    ascending: float32. prefix: float64, of `prefix_kernel`. steps: binary digits of B.
    """

    ascending: Tensor | None = None
    prefix: Tensor | None = None
    steps: int = 0


def sorted_pool(positive: Tensor, kind: str, alpha: float) -> Pool:
    """Sort the positives, float32 [B], and run `prefix_kernel`."""
    ascending = positive.sort().values
    prefix = torch.empty_like(ascending, dtype=torch.float64)
    length = len(ascending)
    prefix_kernel[(1,)](
        ascending,
        prefix,
        length,
        alpha,
        KIND=KIND_CODES[kind],
        CHUNK=PREFIX_CHUNK,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    return Pool(ascending, prefix, length.bit_length())
