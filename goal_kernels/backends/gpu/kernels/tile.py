# mypy: allow-untyped-defs, allow-untyped-decorators
"""Mining tile by tile: for batches so small that every tile has a program, and any precision.

Keys of the hardest negatives meet in `row_keys` and `column_keys` by atomic maximum. Relative sums
are written as *running maxima*, partial results over disjoint sets of negatives that their reader
merges (`results.py`). Each has five values:

    key    int32    similarity of the hardest one (`common.encode`), EMPTY if none
    index  int32    its position, NOWHERE if none
    total  float32  relative sum over the counted negatives
    count  int32    number of them
    top    int32    negatives at or above the threshold that sit at the maximum and are not counted:
                    the hardest one itself and, for the linear kind, its exact ties

When a merge raises the maximum from v to w, the linear total grows by (w - v) per negative and the
exponential total shrinks by exp(-beta (w - v)): only non-negative terms, no exponent above 0, and
the maximum is never part of the sum, so nothing overflows and nothing cancels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import runtime
from goal_kernels.backends.gpu.configs import (
    DOT_PRECISION,
    KIND_CODES,
    LAUNCH_OPTIONS,
    PARTS,
    RUNNING_FIELDS,
    RUNNING_MAXIMA,
    MineTile,
    mine_tile,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    EMPTY,
    LINEAR,
    NOWHERE,
    decode,
    encode,
    pack,
    read_threshold,
)
from goal_kernels.backends.gpu.kernels.masks import own_column
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Prepared, Side, Wants


@triton.jit
def empty_state(LENGTH: tl.constexpr):
    """States [LENGTH] that have seen nothing."""
    zero = tl.zeros([LENGTH], tl.int32)
    return zero + EMPTY, zero + NOWHERE, tl.zeros([LENGTH], tl.float32), zero, zero


@triton.jit
def merge_states(a, b, slope, KIND: tl.constexpr):
    """State of the union of two disjoint sets; `slope` is beta log2(e)."""
    a_key, a_index, a_total, a_count, a_top = a
    b_key, b_index, b_total, b_count, b_top = b
    a_wins = (a_key > b_key) | ((a_key == b_key) & (a_index < b_index))
    key = tl.where(a_wins, a_key, b_key)
    index = tl.where(a_wins, a_index, b_index)
    total = a_total
    count = a_count
    top = a_top
    if KIND != 0:
        tied = a_key == b_key
        gap = tl.where(tied, 0.0, tl.abs(decode(a_key) - decode(b_key)))
        lost_total = tl.where(a_wins, b_total, a_total)
        lost_top = tl.where(a_wins, b_top, a_top)
        lost = tl.where(a_wins, b_count, a_count) + lost_top
        if KIND == LINEAR:
            moved = lost_total + lost * gap
            top = tl.where(tied, a_top + b_top, tl.where(a_wins, a_top, b_top))
        else:
            moved = (lost_total + lost_top) * tl.exp2(-slope * gap)
            top = tl.where(a_wins, a_top, b_top)
        # A side that kept nothing may hold no maximum at all; its gap means nothing then.
        total = tl.where(a_wins, a_total, b_total) + tl.where(lost > 0, moved, 0.0)
        count = a_count + a_top + b_count + b_top - top
    return key, index, total, count, top


@triton.jit
def tile_states(score, key, index, threshold, slope, AXIS: tl.constexpr, KIND: tl.constexpr):
    """States of one tile, reduced along AXIS.

    score, key: [BLOCK_ROWS, BLOCK_COLUMNS], key EMPTY where the pair is not a negative.
    index: positions along AXIS.
    """
    position = tl.expand_dims(index, 1 - AXIS)
    best = tl.max(key, AXIS)
    at_best = (key == tl.expand_dims(best, AXIS)) & (key != EMPTY)
    winner = tl.min(tl.where(at_best, position, NOWHERE), AXIS)
    top = tl.zeros_like(winner)
    count = top
    total = top.to(tl.float32)
    if KIND != 0:
        kept = (key != EMPTY) & (score >= threshold)
        value = decode(best)
        gap = tl.expand_dims(value, AXIS) - score
        if KIND == LINEAR:
            counted = kept & (key < tl.expand_dims(best, AXIS))
            total = tl.sum(tl.where(counted, gap, 0.0), AXIS)
            top = tl.sum((kept & at_best).to(tl.int32), AXIS)
        else:
            counted = kept & (position != tl.expand_dims(winner, AXIS))
            total = tl.sum(tl.where(counted, tl.exp2(-slope * gap), 0.0), AXIS)
            top = ((best != EMPTY) & (value >= threshold)).to(tl.int32)
        count = tl.sum(counted.to(tl.int32), AXIS)
    return best, winner, total, count, top


@triton.jit
def load_state(base, field_stride, offsets, mask):
    """States at `offsets` of a workspace of int32 fields, each `field_stride` words long."""
    key = tl.load(base + offsets, mask=mask, other=EMPTY)
    index = tl.load(base + field_stride + offsets, mask=mask, other=NOWHERE)
    bits = tl.load(base + 2 * field_stride + offsets, mask=mask, other=0)
    count = tl.load(base + 3 * field_stride + offsets, mask=mask, other=0)
    top = tl.load(base + 4 * field_stride + offsets, mask=mask, other=0)
    return key, index, bits.to(tl.float32, bitcast=True), count, top


@triton.jit
def store_state(base, field_stride, offsets, mask, state):
    """Counterpart of `load_state`."""
    key, index, total, count, top = state
    tl.store(base + offsets, key, mask=mask)
    tl.store(base + field_stride + offsets, index, mask=mask)
    tl.store(base + 2 * field_stride + offsets, total.to(tl.int32, bitcast=True), mask=mask)
    tl.store(base + 3 * field_stride + offsets, count, mask=mask)
    tl.store(base + 4 * field_stride + offsets, top, mask=mask)


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


@triton.jit(do_not_specialize=COUNTS)
def tile_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    batch_stats,
    row_keys,
    column_keys,
    row_states,
    column_states,
    waiting,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    parts,
    most,
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
    None; image_ids, text_ids int64 or None; batch_stats, row_keys, column_keys (packed):
    see `common.py`, keys not above those of this call. row_states, column_states: running maxima,
    int32 [fields, slots, rows] and [fields, slots, columns]. KIND 0 reads no batch_stats and
    writes no states. waiting: int64 0-d, nothing is done unless it is above `most`; or None.
    """
    column_group = tl.program_id(0)
    row_group = tl.program_id(1)
    strips = tl.cdiv(rows, BLOCK_ROWS)
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    first_strip = row_group * strips // tl.num_programs(1)
    last_strip = (row_group + 1) * strips // tl.num_programs(1)
    if waiting is not None:
        last_strip = tl.where(tl.load(waiting) > most, last_strip, first_strip)
    first_block = column_group * blocks // tl.num_programs(0)
    last_block = (column_group + 1) * blocks // tl.num_programs(0)
    row_field = tl.num_programs(0).to(tl.int64) * rows
    column_field = tl.num_programs(1).to(tl.int64) * columns
    floor = 0.0
    if KIND != 0:
        floor = read_threshold(batch_stats, parts, epsilon, PARTS)

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


def tile_constants(
    tile: MineTile, dtype: torch.dtype, precision: str, kind: str, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `tile_kernel`; `upcast` widens operands before the product."""
    return {
        "KIND": KIND_CODES[kind],
        "PARTS": PARTS,
        "PRECISION": DOT_PRECISION[precision] if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
    }


def tile_wants(image: Tensor, query: MiningQuery) -> Wants:
    """`mine_tiles` needs no more than `prepare` always makes."""
    return Wants()


def mine_tiles(
    prepared: Prepared,
    pairing: Pairing,
    query: MiningQuery,
    waiting: Tensor | None = None,
    most: int = 0,
) -> tuple[Prepared, MiningResult]:
    """Run `tile_kernel`. The workspace of sums is at most 32 running maxima per anchor.

    waiting, most: see `tile_kernel`.
    """
    image, text, width = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    tile = mine_tile(image.dtype, query.precision, query.kind, max(rows, columns))
    row_groups, column_groups = tile.groups(rows, columns)
    result = MiningResult.fixed(prepared)
    if query.kind != "none":
        result = MiningResult(
            Side(result.rows.keys, _partials(image, column_groups, rows), parts=column_groups),
            Side(result.columns.keys, _partials(text, row_groups, columns), parts=row_groups),
            RUNNING_MAXIMA,
        )
    upcast = runtime.interpreting()
    tile_kernel[(column_groups, row_groups)](
        image,
        text,
        pairing.target,
        pairing.image_ids,
        pairing.text_ids,
        None if query.kind == "none" else prepared.batch_stats,
        *(result.rows.keys, result.columns.keys),
        *(result.rows.sums, result.columns.sums),
        waiting,
        *(rows, columns, width),
        *(image.stride(0), text.stride(0)),
        prepared.batch_stats.shape[1],
        most,
        query.slope,
        query.epsilon,
        **tile_constants(tile, image.dtype, query.precision, query.kind, upcast),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
    return prepared, result


def _partials(like: Tensor, slots: int, length: int) -> Tensor:
    """Uninitialised workspace of running maxima, int32 [RUNNING_FIELDS, slots, length]."""
    return like.new_empty((RUNNING_FIELDS, slots, length), dtype=torch.int32)
