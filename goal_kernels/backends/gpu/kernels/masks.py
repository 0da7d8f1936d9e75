# mypy: allow-untyped-defs, allow-untyped-decorators
"""Which pairs are no negatives, and which tiles have any.

Pairs that are no negatives are few, and to mask a tile costs about as much again as to look at it.
So `prepare_kernel` makes a bitmap, `mixed`: a bit for every MASK_ROWS rows x MASK_ROWS columns, set
where some pair of them is no negative. Mining kernels mask the tiles that a set bit touches, and
those at the edges. The bitmap is exact, whatever order ids and targets are in: ids of MASK_ROWS
rows are sorted, and those of all columns looked up among them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.gpu import configs

MASK_ROWS = tl.constexpr(configs.MASK_ROWS)
MASK_STEPS = tl.constexpr(configs.MASK_ROWS.bit_length() - 1)
WORD_BITS = tl.constexpr(32)
LOOKUP_BLOCKS = tl.constexpr(8)
"""Blocks of columns whose ids are looked up at once: more need more registers than there are."""


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
def is_among(ascending, values):
    """Whether each of `values`, of any length, is one of `ascending` [MASK_ROWS]."""
    below = tl.zeros(values.shape, tl.int32)
    for step in tl.static_range(MASK_STEPS):
        half = MASK_ROWS >> (step + 1)
        smaller = tl.gather(ascending, below + (half - 1), 0) < values
        below = tl.where(smaller, below + half, below)
    return tl.gather(ascending, below, 0) == values


@triton.jit
def store_mixed(target, image_ids, text_ids, mixed, rows, columns, words):
    """Write `mixed`, int32 [blocks of rows, words]; every program its share.

    target, image_ids, text_ids: as in `Pairing`. Bit b of word w stands for the blocks of columns
    32 w + b, that + 32 words, that + 64 words, ...
    """
    items = tl.cast(tl.cdiv(rows, MASK_ROWS), tl.int64) * words
    blocks = tl.cdiv(columns, MASK_ROWS)
    part = tl.arange(0, LOOKUP_BLOCKS)
    for item in range(tl.program_id(0).to(tl.int64), items, tl.num_programs(0)):
        # What lies beyond the last row is that row once more.
        row = (item // words).to(tl.int32) * MASK_ROWS + tl.arange(0, MASK_ROWS)
        row = tl.minimum(row, rows - 1)
        own = own_column(target, row, row < rows, columns)
        own_block = tl.where(own < 0, -1, own // MASK_ROWS)
        if image_ids is not None:
            known = tl.sort(tl.load(image_ids + row))
        word = tl.zeros([], tl.int32)
        for first in range((item % words).to(tl.int32) * WORD_BITS, blocks, words * WORD_BITS):
            for bit in range(0, tl.minimum(blocks - first, WORD_BITS), LOOKUP_BLOCKS):
                here = own_block[:, None] == (first + bit + part)[None, :]
                found = tl.max(here.to(tl.int32), 0)
                if image_ids is not None:
                    column = (first + bit) * MASK_ROWS + tl.arange(0, LOOKUP_BLOCKS * MASK_ROWS)
                    inside = column < columns
                    shared = is_among(known, tl.load(text_ids + column, mask=inside, other=0))
                    shared = tl.reshape((shared & inside).to(tl.int32), [LOOKUP_BLOCKS, MASK_ROWS])
                    found |= tl.max(shared, 1)
                word |= tl.sum(found << (bit + part), 0)
        tl.store(mixed + item, word)


@triton.jit
def needs_mask(
    row,
    column,
    rows,
    columns,
    mixed,
    words,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Whether a tile that begins at (row, column) may hold a pair that is no negative, 0-d.

    mixed, words: see `store_mixed`; None if the positive of row i is column i and there are no ids.
    """
    needed = (row + BLOCK_ROWS > rows) | (column + BLOCK_COLUMNS > columns)
    if mixed is None:
        needed |= (row < column + BLOCK_COLUMNS) & (column < row + BLOCK_ROWS)
    else:
        for i in tl.static_range((BLOCK_ROWS + MASK_ROWS - 1) // MASK_ROWS):
            for j in tl.static_range((BLOCK_COLUMNS + MASK_ROWS - 1) // MASK_ROWS):
                # A tile that reaches beyond the last block is at the edge.
                row_block = tl.minimum(row // MASK_ROWS + i, (rows - 1) // MASK_ROWS)
                bit = (column // MASK_ROWS + j) % (words * WORD_BITS)
                place = tl.cast(row_block, tl.int64) * words + bit // WORD_BITS
                needed |= ((tl.load(mixed + place) >> (bit % WORD_BITS)) & 1) != 0
    return needed


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
