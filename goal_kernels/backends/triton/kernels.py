# mypy: allow-untyped-defs, allow-untyped-decorators
"""Triton kernels of mining, and the door to those of the other stages.

Kernel parameters are device pointers, integers and compile-time constants, which have no Python
types; their shapes and dtypes are in the docstrings. Importing this module imports Triton; load it
through `runtime.load_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.gather import gather_kernel
from goal_kernels.backends.triton.hubs import hub_kernel
from goal_kernels.backends.triton.states import (
    EMPTY,
    LINEAR,
    NAN_KEY,
    decode,
    empty_state,
    encode,
    load_state,
    merge_states,
    store_state,
    tile_states,
)
from goal_kernels.backends.triton.weigh import weigh_kernel

__all__ = ["collapse_kernel", "gather_kernel", "hub_kernel", "mine_kernel", "weigh_kernel"]

INTERPRETED = not isinstance(encode, triton.JITFunction)
"""Whether the kernels below run in the interpreter; fixed when Triton is imported."""


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
def mine_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    threshold,
    row_states,
    column_states,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    slope,
    KIND: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Partial mining states of every row and column.

    Program (q, p) owns the tiles of row group p and column group q, contiguous runs of strips. It
    writes the states of its rows to slot q and of its columns to slot p; no other program touches
    them, so there is nothing to order and the result cannot vary.

    image [rows, width], text [columns, width]: unit stride along width. target int64 [rows] or
    None; image_ids, text_ids int64 or None; threshold float32 0-d. row_states, column_states:
    int32 [fields, slots, rows] and [fields, slots, columns].
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
        floor = tl.load(threshold)

    for strip in range(first_strip, last_strip):
        row = strip * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_inside = row < rows
        image_rows = image + row.to(tl.int64) * image_stride
        if target is None:
            own = row
        else:
            wanted = tl.load(target + row, mask=row_inside, other=-1)
            own = tl.where((wanted >= 0) & (wanted < columns), wanted, -1).to(tl.int32)
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
            place = row_group.to(tl.int64) * columns + column
            walked = tl.zeros_like(column) + (strip - first_strip)
            seen = column_inside & (walked > 0)
            before = load_state(column_states, column_field, place, seen, KIND)
            merged = merge_states(before, down, slope, KIND)
            store_state(column_states, column_field, place, column_inside, merged, KIND)
        place = column_group.to(tl.int64) * rows + row
        store_state(row_states, row_field, place, row_inside, row_state, KIND)
        # The next strip reads column states back, perhaps in other threads than wrote them.
        tl.debug_barrier()


@triton.jit
def collapse_kernel(
    states,
    value,
    index,
    total,
    count,
    slots,
    length,
    slope,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge the partial states of each anchor in slot order and write the results.

    states int32 [fields, slots, length]; value float32, index int64, total float32, count int64,
    all [length]; total and count are None when KIND is 0.
    """
    anchor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = anchor < length
    field = tl.cast(slots, tl.int64) * length
    place = anchor.to(tl.int64)
    state = empty_state(BLOCK)
    for _ in range(slots):
        state = merge_states(state, load_state(states, field, place, inside, KIND), slope, KIND)
        place += length
    key, position, sums, counted, _ = state
    found = key != EMPTY
    tl.store(value + anchor, decode(key), mask=inside)
    tl.store(index + anchor, tl.where(found, position, -1).to(tl.int64), mask=inside)
    if KIND != 0:
        if KIND == LINEAR:
            # No similarity is below NaN, so a NaN maximum counts nothing.
            numeric = key != NAN_KEY
            sums = tl.where(numeric, sums, 0.0)
            counted = tl.where(numeric, counted, 0)
        tl.store(total + anchor, sums, mask=inside)
        tl.store(count + anchor, counted.to(tl.int64), mask=inside)
