# mypy: allow-untyped-defs, allow-untyped-decorators
"""Dot products in float64 of given pairs of rows, in Triton: what a score is defined by."""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton import configs

ALIGNMENT = tl.constexpr(configs.RANK_ALIGNMENT)
"""Elements that rows are padded to a multiple of: whatever their width, loads are wide."""


@triton.jit
def exact_dots(left, right, valid, width, BATCH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Dot products float64 [BATCH] of pairs; left, right: pointers [BATCH] to their rows.

    Products are exact and every pair is summed in the same order, whatever else is in the batch.
    """
    total = tl.zeros([BATCH, BLOCK_WIDTH], tl.float64)
    for start in range(0, width, BLOCK_WIDTH):
        element = start + tl.arange(0, BLOCK_WIDTH)
        inside = valid[:, None] & (element < width)[None, :]
        x = tl.load(left[:, None] + element[None, :], mask=inside, other=0.0)
        y = tl.load(right[:, None] + element[None, :], mask=inside, other=0.0)
        total += x.to(tl.float32).to(tl.float64) * y.to(tl.float32).to(tl.float64)
    return tl.sum(total, 1)


@triton.jit
def dots_kernel(
    out,
    left,
    index,
    right,
    pairs,
    width,
    left_stride,
    right_stride,
    BATCH: tl.constexpr,
    BATCH_WIDTH: tl.constexpr,
):
    """out[p] = <left[index[p]], right[p]>, float64 [pairs]; index int64, None for index[p] = p.

    width, strides: in units of ALIGNMENT.
    """
    pair = tl.program_id(0).to(tl.int64) * BATCH + tl.arange(0, BATCH)
    valid = pair < pairs
    partner = pair
    if index is not None:
        partner = tl.load(index + pair, mask=valid, other=0)
    left += partner * (left_stride * ALIGNMENT)
    right += pair * (right_stride * ALIGNMENT)
    dots = exact_dots(left, right, valid, width * ALIGNMENT, BATCH, BATCH_WIDTH)
    tl.store(out + pair, dots, mask=valid)
