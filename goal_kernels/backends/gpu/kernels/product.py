# mypy: allow-untyped-defs, allow-untyped-decorators
"""Tiles of similarities on tensor cores, which pairs of a tile are negatives."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import StripTile
from goal_kernels.backends.gpu.kernels.common import NOTHING
from goal_kernels.backends.gpu.records import Operands


@triton.jit
def _load_block(
    source,
    row,
    start,
    rows,
    width,
    stride,
    DESCRIPTORS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Block [BLOCK_ROWS, BLOCK_WIDTH] at (row, start) of a matrix [rows, width].

    What lies beyond `width` is 0. Rows beyond the last are 0 or, without descriptors, copies of the
    last one: a clamped address needs no predicate in the loop, and edge tiles are masked anyway.
    """
    if DESCRIPTORS:
        return source.load([row, start])
    else:
        place = tl.minimum(tl.arange(0, BLOCK_ROWS), rows - 1 - row)
        element = tl.arange(0, BLOCK_WIDTH)
        # Rows begin at multiples of 16 bytes, which the compiler cannot see in every stride.
        offset = tl.multiple_of(place * stride, 128 // source.dtype.element_ty.primitive_bitwidth)
        base = source + tl.cast(row, tl.int64) * stride + start
        inside = (element < width - start)[None, :]
        return tl.load(base + (offset[:, None] + element[None, :]), mask=inside, other=0.0)


@triton.jit
def product_tile(
    image,
    text,
    row,
    column,
    shape,
    DESCRIPTORS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Similarities float32 [BLOCK_ROWS, BLOCK_COLUMNS] from position (row, column) on.

    image, text: DESCRIPTORS of blocks [BLOCK_ROWS, BLOCK_WIDTH] and [BLOCK_COLUMNS, BLOCK_WIDTH],
    or pointers to rows of unit inner stride. shape: (rows, columns, width, image_stride,
    text_stride), the strides for pointers alone.

    SPLIT: rows are [high | low], each `width` wide, and the product is high.high + high.low +
    low.high. Where width is no multiple of BLOCK_WIDTH, the last slice of high.high runs into the
    low parts on both sides and adds a piece of low.low, which belongs to the exact product; the
    other two run into zeros on one side.
    """
    rows, columns, width, image_stride, text_stride = shape
    score = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    slices = tl.cdiv(width, BLOCK_WIDTH)
    steps = 3 * slices if SPLIT else slices
    back = slices * BLOCK_WIDTH
    total = 2 * width if SPLIT else width
    for step in range(steps):
        image_start = step * BLOCK_WIDTH
        text_start = image_start
        if SPLIT:
            # Back to the start after every pass, one side to the start of its low parts.
            second, third = step >= slices, step >= 2 * slices
            image_start -= tl.where(second, back, 0) + tl.where(third, back - width, 0)
            text_start -= tl.where(second, back - width, 0) + tl.where(third, back + width, 0)
        x = _load_block(
            image,
            row,
            image_start,
            rows,
            total,
            image_stride,
            DESCRIPTORS,
            BLOCK_ROWS,
            BLOCK_WIDTH,
        )
        y = _load_block(
            text,
            column,
            text_start,
            columns,
            total,
            text_stride,
            DESCRIPTORS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
        )
        if UPCAST:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        score = tl.dot(x, tl.trans(y), score, input_precision=PRECISION)
    return score


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
    # The bound is one of the row, so that the compiler cannot keep a mask of the columns for all
    # row tiles: there are no registers for it either, unless `columns` is a multiple of 16.
    end = tl.where(row_inside, columns, 0)
    score = tl.where(column[None, :] < end[:, None], score, float("-inf"))
    own = own_column(target, row, row_inside, columns)
    score = tl.where(own[:, None] == column[None, :], float("-inf"), score)
    if image_ids is not None:
        row_id = tl.load(image_ids + row, mask=row_inside, other=0)
        column_id = tl.load(text_ids + tl.minimum(column, columns - 1))
        score = tl.where(row_id[:, None] == column_id[None, :], float("-inf"), score)
    return score


def operands_of(operands: Operands, tile: StripTile) -> tuple[Any, Any]:
    """What the kernels load blocks of the image side and of the text side from."""
    image, text, _ = operands
    if not tile.descriptors:
        return image, text
    return (
        TensorDescriptor.from_tensor(image, [tile.rows, tile.width]),
        TensorDescriptor.from_tensor(text, [tile.columns, tile.width]),
    )
