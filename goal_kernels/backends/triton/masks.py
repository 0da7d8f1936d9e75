# mypy: allow-untyped-defs, allow-untyped-decorators
"""Which pairs of a tile are negatives, and which tiles need not ask."""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton import configs
from goal_kernels.backends.triton.keys import NOTHING

RANGE_ROWS = tl.constexpr(configs.RANGE_ROWS)
"""Rows, and columns, whose ids or targets one range spans."""

HIGHEST = tl.constexpr(2**63 - 1)


@triton.jit
def _range_of(ranges, start, length, BLOCK: tl.constexpr):
    """Smallest and largest value of rows [start, start + BLOCK), or of some more around them.

    ranges int64 [2, blocks]: of every RANGE_ROWS of `length` rows.
    """
    PARTS: tl.constexpr = (BLOCK + RANGE_ROWS - 1) // RANGE_ROWS
    blocks = tl.cdiv(length, RANGE_ROWS)
    low = tl.full([], HIGHEST, tl.int64)
    high = tl.full([], NOTHING, tl.int64)
    for part in tl.static_range(PARTS):
        block = start // RANGE_ROWS + part
        inside = block < blocks
        low = tl.minimum(low, tl.load(ranges + block, mask=inside, other=HIGHEST))
        high = tl.maximum(high, tl.load(ranges + blocks + block, mask=inside, other=NOTHING))
    return low, high


@triton.jit
def needs_mask(
    row,
    column,
    rows,
    columns,
    target_ranges,
    row_ranges,
    column_ranges,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Whether a tile that begins at (row, column) may hold a pair that is no negative, 0-d.

    The ranges are those of `_range_of`; None where there are no targets (the positive of row i is
    column i then) or no ids.
    """
    needed = (row + BLOCK_ROWS > rows) | (column + BLOCK_COLUMNS > columns)
    if target_ranges is None:
        needed |= (row < column + BLOCK_COLUMNS) & (column < row + BLOCK_ROWS)
    else:
        low, high = _range_of(target_ranges, row, rows, BLOCK_ROWS)
        needed |= (low < column + BLOCK_COLUMNS) & (high >= column)
    if row_ranges is not None:
        low, high = _range_of(row_ranges, row, rows, BLOCK_ROWS)
        other_low, other_high = _range_of(column_ranges, column, columns, BLOCK_COLUMNS)
        needed |= (low <= other_high) & (other_low <= high)
    return needed


@triton.jit
def own_column(target, row, inside, columns):
    """Column of the positive of every row, int32; one that does not exist equals no column."""
    if target is None:
        own = row
    else:
        wanted = tl.load(target + row, mask=inside, other=-1)
        own = tl.where((wanted >= 0) & (wanted < columns), wanted, -1).to(tl.int32)
    return own


@triton.jit
def exclude(score, row, column, rows, columns, target, image_ids, text_ids):
    """`score`, which holds no NaN, with -inf where a pair is no negative.

    row [BLOCK_ROWS], column [BLOCK_COLUMNS]: positions of the tile. One comparison at a time: all
    of them together would hold a predicate per element, in registers that there are none of.
    """
    row_inside = row < rows
    column_inside = column < columns
    score = tl.minimum(score, tl.where(row_inside, float("inf"), float("-inf"))[:, None])
    score = tl.minimum(score, tl.where(column_inside, float("inf"), float("-inf"))[None, :])
    own = own_column(target, row, row_inside, columns)
    score = tl.where(own[:, None] == column[None, :], float("-inf"), score)
    if image_ids is not None:
        row_id = tl.load(image_ids + row, mask=row_inside, other=0)
        column_id = tl.load(text_ids + column, mask=column_inside, other=0)
        score = tl.where(row_id[:, None] == column_id[None, :], float("-inf"), score)
    return score
