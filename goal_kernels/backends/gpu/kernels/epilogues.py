# mypy: allow-untyped-defs, allow-untyped-decorators
"""Losses over all negatives: kernels that weigh a block of similarities in one pass.

A block S, float32 [rows, columns], is a product of the vendor's library. `log_sums_kernel` reads
it; the others read it and write the weights dL/dS over it. A program has one tile. What it sums
over its columns, and over its rows, it stores beside what other programs found of the same anchors;
torch adds that up, in float64 and in order, so results do not depend on how programs are scheduled.

To add a loss: its code in `CODES`, and its line in `_exponent` and `_slope`, or in `_push`.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.gpu.configs import LAUNCH_OPTIONS
from goal_kernels.backends.gpu.runtime import on_device

INFO_NCE, MULTI_SIMILARITY, CIRCLE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
HINGES, SOFT_MARGIN = tl.constexpr(3), tl.constexpr(4)

CODES = {
    "info_nce": INFO_NCE.value,
    "multi_similarity": MULTI_SIMILARITY.value,
    "circle": CIRCLE.value,
    "sum_of_hinges": HINGES.value,
    "soft_margin": SOFT_MARGIN.value,
}
"""Of the losses that share kernels with others."""

BLOCK_ROWS, BLOCK_COLUMNS, WARPS = 32, 128, 8
"""Of a tile: 16 elements a thread, 512 bytes a row. Partial sums are a tenth of a block at most."""


@triton.jit
def _tile(similarity, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """Numbers of the rows and columns of a program, which of its elements there are, pointers."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    place = similarity + row.to(tl.int64)[:, None] * columns + column[None, :]
    return row, column, inside, place


@triton.jit
def _same(own, row_ids, column_ids, row, column, rows, columns):
    """Whether text and image are a pair, or have equal ids."""
    mine = tl.load(own + row, mask=row < rows, other=-1)
    same = mine[:, None] == column[None, :]
    if row_ids is not None:
        row_id = tl.load(row_ids + row, mask=row < rows, other=0)
        column_id = tl.load(column_ids + column, mask=column < columns, other=0)
        same |= row_id[:, None] == column_id[None, :]
    return same


@triton.jit
def _exponent(score, a, b, KIND: tl.constexpr):
    """Of a negative."""
    if KIND == INFO_NCE:
        return score * tl.load(a)
    elif KIND == MULTI_SIMILARITY:
        return (score - b) * a
    else:
        return (score - b) * _slope(score, a, b, KIND)


@triton.jit
def _slope(score, a, b, KIND: tl.constexpr):
    """The derivative of `_exponent`, where the factor of the circle loss counts as a constant.

    That of InfoNCE is by the scaled similarity.
    """
    if KIND == INFO_NCE:
        return 1.0
    elif KIND == MULTI_SIMILARITY:
        return a
    else:
        return tl.maximum(score + b, 0.0) * a


@triton.jit
def _softplus(z):
    """log(1 + exp z), with the digits of log1p where exp z is small."""
    power = tl.exp(-tl.abs(z))
    whole = 1.0 + power
    small = whole == 1.0
    quotient = power / tl.where(small, 1.0, whole - 1.0)
    logarithm = tl.where(small, power, tl.log(whole) * quotient)
    return tl.maximum(z, 0.0) + logarithm


@triton.jit
def _store_log_sum(most, total, exponent, anchor, length, part, AXIS: tl.constexpr):
    """The largest exponent along AXIS, and the sum of exponentials over that of the largest."""
    largest = tl.max(exponent, AXIS)
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    place = part.to(tl.int64) * length + anchor
    tl.store(most + place, largest, mask=anchor < length)
    powers = tl.exp(exponent - tl.expand_dims(shift, AXIS))
    tl.store(total + place, tl.sum(powers, AXIS), mask=anchor < length)


@triton.jit
def log_sums_kernel(
    similarity,
    own,
    row_ids,
    column_ids,
    a,
    b,
    row_most,
    row_sum,
    column_most,
    column_sum,
    rows,
    columns,
    KIND: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """row_most, row_sum float32 [tiles along the columns, rows]; column_most, column_sum alike.

    Those of a side may be None. own: int64 [rows], the column of the pair, -1 for none.
    """
    row, column, inside, place = _tile(similarity, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    score = tl.load(place, mask=inside, other=0.0)
    same = _same(own, row_ids, column_ids, row, column, rows, columns)
    exponent = tl.where(inside & ~same, _exponent(score, a, b, KIND), float("-inf"))
    if row_most is not None:
        _store_log_sum(row_most, row_sum, exponent, row, rows, tl.program_id(1), 1)
    if column_most is not None:
        _store_log_sum(column_most, column_sum, exponent, column, columns, tl.program_id(0), 0)


@triton.jit
def exponential_kernel(
    similarity,
    own,
    row_ids,
    column_ids,
    a,
    b,
    row_offset,
    column_offset,
    rows,
    columns,
    KIND: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Weights of a loss of log-sums. row_offset [rows], column_offset [columns]: see `_offset`."""
    row, column, inside, place = _tile(similarity, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    score = tl.load(place, mask=inside, other=0.0)
    same = _same(own, row_ids, column_ids, row, column, rows, columns)
    exponent = tl.where(same, float("-inf"), _exponent(score, a, b, KIND))
    weight = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    if row_offset is not None:
        offset = tl.load(row_offset + row, mask=row < rows, other=0.0)
        weight += tl.exp(exponent + offset[:, None])
    if column_offset is not None:
        offset = tl.load(column_offset + column, mask=column < columns, other=0.0)
        weight += tl.exp(exponent + offset[None, :])
    tl.store(place, weight * _slope(score, a, b, KIND), mask=inside)


@triton.jit
def _push(positive, negative, a, KIND: tl.constexpr):
    """Value of a positive and a negative, and its derivative by the negative."""
    if KIND == HINGES:
        over = negative + (a - positive)
        return tl.maximum(over, 0.0), tl.where(over > 0.0, 1.0, 0.0)
    else:
        over = (negative - positive) * a
        return _softplus(over) / a, tl.sigmoid(over)


@triton.jit
def pairs_kernel(
    similarity,
    own,
    row_ids,
    column_ids,
    a,
    row_positive,
    column_positive,
    value,
    row_pull,
    column_pull,
    rows,
    columns,
    KIND: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Weights of a loss of single negatives, whose derivative by the positive is as large.

    row_positive [rows], column_positive [columns]: infinity for none; None for a side that is not
    asked for. value: [programs]. row_pull [tiles along the columns, rows], column_pull: sums.
    """
    row, column, inside, place = _tile(similarity, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    score = tl.load(place, mask=inside, other=0.0)
    same = _same(own, row_ids, column_ids, row, column, rows, columns)
    negative = tl.where(inside & ~same, score, float("-inf"))
    values = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    weight = values
    if row_positive is not None:
        positive = tl.load(row_positive + row, mask=row < rows, other=float("inf"))
        more, push = _push(positive[:, None], negative, a, KIND)
        values += more
        weight += push
        base = row_pull + tl.program_id(1).to(tl.int64) * rows
        tl.store(base + row, tl.sum(push, 1), mask=row < rows)
    if column_positive is not None:
        positive = tl.load(column_positive + column, mask=column < columns, other=float("inf"))
        more, push = _push(positive[None, :], negative, a, KIND)
        values += more
        weight += push
        base = column_pull + tl.program_id(0).to(tl.int64) * columns
        tl.store(base + column, tl.sum(push, 0), mask=column < columns)
    tl.store(place, weight, mask=inside)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(value + program, tl.sum(tl.sum(values, 1), 0))


@triton.jit
def siglip_kernel(
    similarity,
    own,
    row_ids,
    column_ids,
    scale,
    bias,
    value,
    by_bias,
    rows,
    columns,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Weights by scale S of SigLIP. scale, bias: 0-d. value, by_bias: [programs], sums."""
    row, column, inside, place = _tile(similarity, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    score = tl.load(place, mask=inside, other=0.0)
    same = _same(own, row_ids, column_ids, row, column, rows, columns)
    sign = tl.where(same, -1.0, 1.0)
    logit = sign * (score * tl.load(scale) + tl.load(bias))
    values = tl.where(inside, _softplus(logit), 0.0)
    weight = tl.where(inside, sign * tl.sigmoid(logit), 0.0)
    tl.store(place, weight, mask=inside)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(value + program, tl.sum(tl.sum(values, 1), 0))
    tl.store(by_bias + program, tl.sum(tl.sum(weight, 1), 0))


Masks = tuple[Tensor, Tensor | None, Tensor | None]
"""own int64 [rows], the column of the pair of each row, -1 for none; ids of rows and columns."""


def tile_counts(block: Tensor) -> tuple[int, int]:
    """Tiles along the rows, and along the columns."""
    return triton.cdiv(block.shape[0], BLOCK_ROWS), triton.cdiv(block.shape[1], BLOCK_COLUMNS)


def launch(kernel: Any, block: Tensor, masks: Masks, *arguments: Any, **constants: int) -> None:
    """Run a kernel of this file. block: float32 [rows, columns], contiguous."""
    with on_device(block):
        kernel[tile_counts(block)](
            *(block, *masks, *arguments, *block.shape),
            **constants,
            BLOCK_ROWS=BLOCK_ROWS,
            BLOCK_COLUMNS=BLOCK_COLUMNS,
            num_warps=WARPS,
            **LAUNCH_OPTIONS,
        )
