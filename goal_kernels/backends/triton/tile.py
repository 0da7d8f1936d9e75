# mypy: allow-untyped-defs, allow-untyped-decorators
"""Mining tile by tile: for batches so small that every tile has a program, and any precision.

Keys of the hardest negatives meet in `row_keys` and `column_keys` by atomic maxima. Relative sums
are written as partial states, which the reader merges (`finish.py`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.facts import read_threshold
from goal_kernels.backends.triton.keys import pack
from goal_kernels.backends.triton.masks import own_column
from goal_kernels.backends.triton.states import (
    EMPTY,
    empty_state,
    encode,
    load_state,
    merge_states,
    store_state,
    tile_states,
)


@triton.jit
def similarity_tile(
    image_rows,
    text_rows,
    row_inside,
    column_inside,
    width,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Similarities float32 [BLOCK_ROWS, BLOCK_COLUMNS] from pointers to the embedding rows."""
    score = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    for start in range(0, width, BLOCK_WIDTH):
        element = start + tl.arange(0, BLOCK_WIDTH)
        inside = (element < width)[None, :]
        x = tl.load(image_rows[:, None] + element[None, :], row_inside[:, None] & inside, other=0.0)
        y = tl.load(
            text_rows[:, None] + element[None, :], column_inside[:, None] & inside, other=0.0
        )
        if UPCAST:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        score = tl.dot(x, tl.trans(y), score, input_precision=PRECISION)
    return score


@triton.jit
def _raise_keys(keys, place, state, inside):
    """Let the maxima that the states of anchors `place` have seen enter `keys`."""
    key, index, _, _, _ = state
    tl.atomic_max(keys + place, pack(key, index), mask=inside & (key != EMPTY), sem="relaxed")


@triton.jit
def tile_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    facts,
    row_keys,
    column_keys,
    row_states,
    column_states,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    parts,
    slope,
    epsilon,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Keys of every row and column, and their partial mining states if sums are wanted.

    Program (q, p) owns the tiles of row group p and column group q, contiguous runs of strips. It
    writes the states of its rows to slot q and of its columns to slot p; no other program touches
    them, so there is nothing to order and the result cannot vary.

    image [rows, width], text [columns, width]: unit stride along width. target int64 [rows] or
    None; image_ids, text_ids int64 or None; facts: see `facts`; row_keys, column_keys: packed
    (`keys`), not above those of this call. row_states, column_states: int32 [fields, slots, rows]
    and [fields, slots, columns]. KIND 0 reads no facts and writes no states.
    """
    column_group = tl.program_id(0)
    row_group = tl.program_id(1)
    strips = tl.cdiv(rows, BLOCK_ROWS)
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    first_strip = row_group * strips // tl.num_programs(1)
    last_strip = (row_group + 1) * strips // tl.num_programs(1)
    first_block = column_group * blocks // tl.num_programs(0)
    last_block = (column_group + 1) * blocks // tl.num_programs(0)
    row_field = tl.num_programs(0).to(tl.int64) * rows
    column_field = tl.num_programs(1).to(tl.int64) * columns
    floor = 0.0
    if KIND != 0:
        floor = read_threshold(facts, parts, epsilon, PARTS)

    for strip in range(first_strip, last_strip):
        row = strip * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_inside = row < rows
        image_rows = image + row.to(tl.int64) * image_stride
        own = own_column(target, row, row_inside, columns)
        if image_ids is not None:
            row_id = tl.load(image_ids + row, mask=row_inside, other=0)
        row_state = empty_state(BLOCK_ROWS)
        for block in range(first_block, last_block):
            column = block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
            column_inside = column < columns
            text_rows = text + column.to(tl.int64) * text_stride
            score = similarity_tile(
                image_rows,
                text_rows,
                row_inside,
                column_inside,
                width,
                PRECISION,
                UPCAST,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                BLOCK_WIDTH,
            )
            negative = row_inside[:, None] & column_inside[None, :]
            negative &= own[:, None] != column[None, :]
            if image_ids is not None:
                column_id = tl.load(text_ids + column, mask=column_inside, other=0)
                negative &= row_id[:, None] != column_id[None, :]
            key = tl.where(negative, encode(score), EMPTY)
            along = tile_states(score, key, column, floor, slope, 1, KIND)
            row_state = merge_states(row_state, along, slope, KIND)
            down = tile_states(score, key, row, floor, slope, 0, KIND)
            _raise_keys(column_keys, column, down, column_inside)
            if KIND != 0:
                place = row_group.to(tl.int64) * columns + column
                walked = tl.zeros_like(column) + (strip - first_strip)
                before = load_state(
                    column_states, column_field, place, column_inside & (walked > 0)
                )
                merged = merge_states(before, down, slope, KIND)
                store_state(column_states, column_field, place, column_inside, merged)
        _raise_keys(row_keys, row, row_state, row_inside)
        if KIND != 0:
            place = column_group.to(tl.int64) * rows + row
            store_state(row_states, row_field, place, row_inside, row_state)
            # The next strip reads column states back, perhaps in other threads than wrote them.
            tl.debug_barrier()
