# mypy: allow-untyped-defs, allow-untyped-decorators
"""The mining kernel for large batches: columns stand still while row tiles go by.

Work items are (segment of row tiles) x (group of column blocks); program p takes items p,
p + programs, ... For each column block of the group it walks the row tiles of the segment, a
*strip*. Maxima go into packed keys by atomic maximum, counts by atomic addition of integers. Sums
have one part per group (rows) and per segment (columns), written by one program in one order. So
nothing depends on how many programs there are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.columns import (
    add_maxima,
    add_sums,
    finish_columns,
    start_columns,
)
from goal_kernels.backends.triton.facts import (
    GREATEST_SCORE,
    read_bound,
    read_threshold,
    wide_range,
)
from goal_kernels.backends.triton.keys import NOTHING, pack
from goal_kernels.backends.triton.masks import exclude, needs_mask
from goal_kernels.backends.triton.products import product_tile
from goal_kernels.backends.triton.states import EMPTY, LINEAR, NAN_KEY, NOWHERE, encode

FLOAT32_MAX = tl.constexpr(3.4028234663852886e38)
INFINITE_KEY = tl.constexpr(0x7F800000)


@triton.jit
def _comparable(score):
    """NaN as inf, infinities as the largest finite numbers: -inf is left to pairs that are masked.

    A number that large is taken for infinite, then; `_key` turns all of them back.
    """
    finite = tl.minimum(tl.maximum(score, -FLOAT32_MAX), FLOAT32_MAX)
    return tl.where(score != score, float("inf"), finite)


@triton.jit
def _key(value):
    """int32 key of `encode` of a maximum over `_comparable` similarities; EMPTY for -inf."""
    key = encode(value)
    key = tl.where(value == float("inf"), NAN_KEY, key)
    key = tl.where(value == FLOAT32_MAX, INFINITE_KEY, key)
    key = tl.where(value == -FLOAT32_MAX, ~INFINITE_KEY, key)
    return tl.where(value == float("-inf"), EMPTY, key)


@triton.jit
def _raise_keys(keys, place, inside, key, index):
    """Atomic maximum of packed keys; a glance at what is there spares most of them.

    A key only ever rises, so an outdated glance costs an atomic and changes nothing.
    """
    packed = pack(key, index)
    known = tl.load(keys + place, mask=inside, other=0, cache_modifier=".cg")
    wanted = inside & (key != EMPTY) & (packed > known)
    tl.atomic_max(keys + place, packed, mask=wanted, sem="relaxed")


@triton.jit
def _add_count(counts, place, inside, count):
    tl.atomic_add(counts + place, count, mask=inside & (count > 0), sem="relaxed")


@triton.jit
def _tops(key, ties):
    """int64: the key of a maximum << 32 | how often it occurs."""
    return (key.to(tl.int64) << 32) | ties.to(tl.int64)


@triton.jit
def _raise_rows(score, best, row, column, rows, row_keys):
    """Raise the keys of the rows of a tile, given their maxima."""
    chosen = tl.min(tl.where(score == best[:, None], column[None, :], NOWHERE), 1)
    _raise_keys(row_keys, row, row < rows, _key(best), chosen)


@triton.jit
def _sum_rows(
    score,
    best,
    of_rows,
    row,
    rows,
    sums,
    counts,
    tops,
    place,
    first,
    KIND: tl.constexpr,
):
    """Add totals and counts of the rows of a tile. place: of row 0. first: nothing is there yet."""
    inside = row < rows
    later = inside & (first == 0)
    total = of_rows[0] + tl.load(sums + place + row, mask=later, other=0.0)
    tl.store(sums + place + row, total, mask=inside)
    _add_count(counts, row, inside, of_rows[1].to(tl.int32))
    if KIND == LINEAR:
        # Not ==: the index search compares so, and the compiler would keep the predicates for it.
        ties = tl.sum(tl.where(score >= best[:, None], 1.0, 0.0), 1).to(tl.int32)
        here = _tops(_key(best), ties)
        known = tl.load(tops + place + row, mask=later, other=NOTHING)
        same = (known >> 32) == (here >> 32)
        top = tl.where(same, known + ties, tl.maximum(known, here))
        tl.store(tops + place + row, top, mask=inside)


@triton.jit
def _publish_columns(
    state,
    row,
    column,
    columns,
    keys,
    sums,
    counts,
    tops,
    place,
    LANES: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Column results of a strip that starts at `row`. place: of the sums of column 0."""
    inside = column < columns
    result = finish_columns(state, LANES, KIND, BLOCK_ROWS)
    key = _key(result[0])
    _raise_keys(keys, column, inside, key, row + result[1])
    if KIND != 0:
        tl.store(sums + place + column, result[2], mask=inside)
        _add_count(counts, column, inside, result[3])
    if KIND == LINEAR:
        tl.store(tops + place + column, _tops(key, result[4]), mask=inside)


@triton.jit
def _item(item, segments, groups, chunk):
    """(segment, group) of a work item.

    Segments are taken in chunks that stay in the L2 cache together, and within a chunk all groups,
    each with all segments of the chunk in turn.
    """
    first = item // (chunk * groups) * chunk
    size = tl.minimum(chunk, segments - first)
    within = item - first * groups
    return first + within % size, within // size


@triton.jit
def strip_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    target_ranges,
    row_ranges,
    column_ranges,
    facts,
    row_keys,
    column_keys,
    row_sums,
    column_sums,
    row_counts,
    column_counts,
    row_tops,
    column_tops,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    parts,
    segment_tiles,
    group_blocks,
    chunk,
    epsilon,
    slope,
    KIND: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    LANES: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Packed keys of all rows and columns, and FIXED sums, see `finish.py`.

    image, text, width: operands of `product_tile`. target, image_ids, text_ids: as in `Pairing`;
    target_ranges, row_ranges, column_ranges: their ranges, see `masks.needs_mask`. facts float32
    [3, parts]. row_keys [rows], column_keys [columns]: int64, NOTHING before. With sums: row_sums
    float32 [groups, rows], column_sums [segments, columns], row_tops, column_tops int64 likewise
    (linear kind only), row_counts, column_counts int32, zeros before; None otherwise.

    segment_tiles, group_blocks: tiles per segment, column blocks per group. chunk: see `_item`.
    slope > 0: it multiplies -inf.
    """
    tiles = tl.cdiv(rows, BLOCK_ROWS)
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    segments = tl.cdiv(tiles, segment_tiles)
    groups = tl.cdiv(blocks, group_blocks)
    bound = read_bound(facts, parts, PARTS)
    special = (bound < GREATEST_SCORE) == 0
    threshold = 0.0
    if KIND != 0:
        threshold = read_threshold(facts, parts, epsilon, PARTS)
        summing = wide_range(bound, threshold, slope, KIND) == 0
    for item in range(tl.program_id(0), segments * groups, tl.num_programs(0)):
        segment, group = _item(item, segments, groups, chunk)
        first_row = segment * segment_tiles * BLOCK_ROWS
        strip_tiles = tl.minimum(segment_tiles, tiles - segment * segment_tiles)
        first_block = group * group_blocks
        group_place = tl.cast(group, tl.int64) * rows
        segment_place = tl.cast(segment, tl.int64) * columns
        for block in range(first_block, tl.minimum(first_block + group_blocks, blocks)):
            column_start = block * BLOCK_COLUMNS
            column = column_start + tl.arange(0, BLOCK_COLUMNS)
            state = start_columns(LANES, BLOCK_COLUMNS, KIND)
            for tile in range(strip_tiles):
                row_start = first_row + tile * BLOCK_ROWS
                row = row_start + tl.arange(0, BLOCK_ROWS)
                shape = (rows, columns, width, image_stride, text_stride)
                score = product_tile(
                    image, text, row_start, column_start, shape, DESCRIPTORS, SPLIT, PRECISION,
                    UPCAST, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
                )  # fmt: skip
                masked = special | needs_mask(
                    row_start, column_start, rows, columns, target_ranges, row_ranges,
                    column_ranges, BLOCK_ROWS, BLOCK_COLUMNS,
                )  # fmt: skip
                if masked:
                    score = exclude(
                        _comparable(score), row, column, rows, columns, target, image_ids, text_ids
                    )
                best = tl.max(score, 1)
                later = state[1:]
                if KIND != 0:
                    # The first block of the group writes, whatever it has to add.
                    first = block == first_block
                    if summing & (first | (tl.max(best, 0) >= threshold)):
                        later, of_rows = add_sums(state, score, threshold, slope, LANES, KIND)
                        _sum_rows(
                            score, best, of_rows, row, rows, row_sums, row_counts, row_tops,
                            group_place, first, KIND,
                        )  # fmt: skip
                state = add_maxima(state[0], later[0], score, tile, LANES, KIND) + later[1:]
                _raise_rows(score, best, row, column, rows, row_keys)
            _publish_columns(
                state, first_row, column, columns, column_keys, column_sums, column_counts,
                column_tops, segment_place, LANES, KIND, BLOCK_ROWS,
            )  # fmt: skip
            # Row sums of this block are read back for the next, perhaps in other threads.
            tl.debug_barrier()
