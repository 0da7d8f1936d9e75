# mypy: allow-untyped-defs, allow-untyped-decorators
"""Triton kernels of mining and of the gradients.

Kernel parameters are device pointers, integers and compile-time constants, which have no Python
types; their shapes and dtypes are in the docstrings. Importing this module imports Triton; load it
through `runtime.load_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

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


@triton.jit
def source_row(source, index, weight, source_rows, source_stride, element, inside):
    """weight * source[index] as float32 [BLOCK_WIDTH]; zeros where the index is out of range."""
    place = tl.zeros_like(element) + index
    present = inside & (place >= 0) & (place < source_rows)
    values = tl.load(source + place * source_stride + element, mask=present, other=0.0)
    return tl.where(present, weight * values.to(tl.float32), 0.0)


@triton.jit
def gather_kernel(
    out,
    source,
    grad_loss,
    mined,
    mined_weight,
    positive,
    positive_weight,
    entry_source,
    entry_weight,
    entry_starts,
    source_rows,
    width,
    source_stride,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One slice of one gradient row.

    out[r] = grad_loss * (mined_weight[r] source[mined[r]] - positive_weight[r] source[positive[r]]
             + sum over entries e of r of entry_weight[e] source[entry_source[e]])

    out [R, width] contiguous; source [source_rows, width], unit stride along width. mined int64
    [R]; positive int64 [R] or None for positive[r] = r; positive_weight None leaves that term out;
    entry_source int64 and entry_weight [E], the entries of row r from entry_starts[r] to
    entry_starts[r + 1] (int64 [R + 1]); weights and the 0-d grad_loss float32. Entries are added in
    their order, in groups of BLOCK_ENTRIES.
    """
    row = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    inside = element < width
    mined_row = tl.load(mined + row)
    mined_scale = tl.load(mined_weight + row)
    total = source_row(source, mined_row, mined_scale, source_rows, source_stride, element, inside)
    if positive_weight is not None:
        own_row = row
        if positive is not None:
            own_row = tl.load(positive + row)
        own_scale = -tl.load(positive_weight + row)
        total += source_row(source, own_row, own_scale, source_rows, source_stride, element, inside)
    first = tl.load(entry_starts + row)
    last = tl.load(entry_starts + row + 1)
    for start in range(first, last, BLOCK_ENTRIES):
        entry = start + tl.arange(0, BLOCK_ENTRIES)
        listed = entry < last
        rows = tl.load(entry_source + entry, mask=listed, other=0)
        scale = tl.load(entry_weight + entry, mask=listed, other=0.0)
        values = tl.load(
            source + rows[:, None] * source_stride + element[None, :],
            mask=listed[:, None] & inside[None, :],
            other=0.0,
        )
        total += tl.sum(scale[:, None] * values.to(tl.float32), 0)
    total *= tl.load(grad_loss)
    tl.store(out + row * width + element, total.to(out.dtype.element_ty), mask=inside)
