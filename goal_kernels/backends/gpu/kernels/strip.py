# mypy: allow-untyped-defs, allow-untyped-decorators
"""The mining kernel for large batches: a program keeps a column block and walks down the rows.

A work item is a *strip*, the row tiles of a segment in one column block; program p takes items p,
p + programs, ... Maxima go into packed keys by atomic maximum, counts and sums by atomic addition
of integers (`fixed_sums.py`). So nothing depends on how many programs there are.

*Slices.* Fragments of mma and wgmma spread a column of the accumulator over 8 lanes of every warp.
With LANES = 8 * warps the reshape

    [BLOCK_ROWS, BLOCK_COLUMNS] -> [repeats, warps, half, 8, BLOCK_COLUMNS]

follows them: repeats and halves lie in one thread, so a slice, the LANES rows of one repeat and
half, is cut out without moving data, and comparing slices with each other moves none either. On
another layout the reshape is slow and still right. LANES = 1 stands for hardware with other
fragments: the tile is its only slice. Slices are numbered so that the rows of one lane rise.

*Column states.* Comparing across lanes for every tile would cost more than the products, so every
lane keeps a state of its own over the rows it has seen, and lanes are reduced at the end of a
strip. A state is (best, place[, total[, ties]]), each [LANES, BLOCK_COLUMNS]:

    best   float32  largest similarity, -inf if none
    place  int32    number of the slice (LANES = 1: the row) where it was seen first; with sums, the
                    upper 9 bits count the kept similarities, at most one per slice: `_counted`
    total  float32  sum of the kept terms
    ties   float32  of the linear kind: how often best was seen, if it is at or above the threshold

LANES = 1 has an int64 place, whose upper half counts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import runtime
from goal_kernels.backends.gpu.configs import LAUNCH_OPTIONS, StripTile, strip_plan
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    EMPTY,
    GREATEST_SCORE,
    LINEAR,
    NAN_KEY,
    NOWHERE,
    encode,
    pack,
    read_bound,
    read_threshold,
    wide_range,
)
from goal_kernels.backends.gpu.kernels.fixed_sums import add_totals, linear_scale, raise_tops
from goal_kernels.backends.gpu.kernels.masks import exclude, needs_mask
from goal_kernels.backends.gpu.kernels.product import operands_of, product_tile
from goal_kernels.backends.gpu.kernels.resum import resum_constants, usual_tile
from goal_kernels.backends.gpu.plan import usual_programs
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Prepared, Wants


@triton.jit
def slices_of(tile, LANES: tl.constexpr):
    """A tile as a tuple of 2 or 4 tensors [LANES, BLOCK_COLUMNS], or of itself."""
    if LANES == 1:
        return (tile,)
    else:
        REPEATS: tl.constexpr = tile.shape[0] // (2 * LANES)
        COLUMNS: tl.constexpr = tile.shape[1]
        tl.static_assert(REPEATS == 1 or REPEATS == 2, "a tile has 2 or 4 slices")
        parts = tl.reshape(tile, [REPEATS, LANES // 8, 2, 8, COLUMNS])
        upper, lower = tl.split(tl.permute(parts, (1, 3, 4, 0, 2)))
        if REPEATS == 1:
            return tl.reshape(upper, [LANES, COLUMNS]), tl.reshape(lower, [LANES, COLUMNS])
        else:
            first, third = tl.split(upper)
            second, fourth = tl.split(lower)
            return (
                tl.reshape(first, [LANES, COLUMNS]),
                tl.reshape(second, [LANES, COLUMNS]),
                tl.reshape(third, [LANES, COLUMNS]),
                tl.reshape(fourth, [LANES, COLUMNS]),
            )


@triton.jit
def rows_of(slices, LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Tensors [LANES], one number per row of each slice -> [BLOCK_ROWS] in order of the rows."""
    if LANES == 1:
        return slices[0]
    else:
        REPEATS: tl.constexpr = BLOCK_ROWS // (2 * LANES)
        if REPEATS == 1:
            joined = tl.join(slices[0], slices[1])
        else:
            joined = tl.join(tl.join(slices[0], slices[2]), tl.join(slices[1], slices[3]))
        parts = tl.reshape(joined, [LANES // 8, 8, REPEATS, 2])
        return tl.reshape(tl.permute(parts, (2, 0, 3, 1)), [BLOCK_ROWS])


@triton.jit
def row_of(number, LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Row, from the first of tile 0, of every lane in slice `number` [LANES, any] of all tiles."""
    SLICES: tl.constexpr = BLOCK_ROWS // LANES
    lane = tl.arange(0, LANES)[:, None]
    part = number % SLICES
    start = (number // SLICES) * BLOCK_ROWS + (part // 2) * (2 * LANES) + (part % 2) * 8
    return start + (lane // 8) * 16 + lane % 8


@triton.jit
def start_columns(LANES: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, KIND: tl.constexpr):
    """States that have seen nothing."""
    zero = tl.zeros([LANES, BLOCK_COLUMNS], tl.float32)
    best = zero + float("-inf")
    place = tl.zeros([LANES, BLOCK_COLUMNS], tl.int64 if LANES == 1 else tl.int32)
    if KIND == 0:
        return best, place
    elif KIND == LINEAR:
        return best, place, zero, zero
    else:
        return best, place, zero


@triton.jit
def _counted(place, kept, LANES: tl.constexpr):
    """`place` that has counted `kept`: 0.0 or 1.0; with LANES = 1 any whole number.

    The bits of 1.0 are 127 * 2^23, those of 0.0 are 0, so adding bits adds 127 to the upper 9 bits
    for every kept similarity and leaves the others alone: one instruction, no register more.
    """
    if LANES == 1:
        return place + (kept.to(tl.int64) << 32)
    else:
        return place + kept.to(tl.int32, bitcast=True)


@triton.jit
def _count(place, LANES: tl.constexpr):
    """How many similarities `place` has counted. 127 * 383 = 1 modulo 2^9."""
    if LANES == 1:
        return (place >> 32).to(tl.int32)
    else:
        return ((place >> 23) * 383) & 511


@triton.jit
def _rows_of_places(place, LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Rows int32 [LANES, BLOCK_COLUMNS] from the start of the strip."""
    if LANES == 1:
        return (place & 0x7FFFFFFF).to(tl.int32)
    else:
        return row_of(place & 0x7FFFFF, LANES, BLOCK_ROWS)


@triton.jit
def _raise(best, place, score, number, LANES: tl.constexpr, KIND: tl.constexpr):
    """Best and place after slice `number` (LANES = 1: after the tile that begins at that row)."""
    value = score
    seen = number
    if LANES == 1:
        value = tl.max(score, 0)[None, :]
        row = tl.arange(0, score.shape[0])[:, None]
        seen += tl.min(tl.where(score == value, row, NOWHERE), 0)[None, :].to(tl.int64)
    if KIND != 0:
        COUNT: tl.constexpr = -(2**32) if LANES == 1 else -(2**23)
        seen |= place & COUNT
    return tl.maximum(best, value), tl.where(value > best, seen, place)


@triton.jit
def add_maxima(best, place, tile, number, LANES: tl.constexpr, KIND: tl.constexpr):
    """Best and place after tile `number` of the strip, -inf where there is no negative."""
    SLICES: tl.constexpr = 1 if LANES == 1 else tile.shape[0] // LANES
    STEP: tl.constexpr = tile.shape[0] if LANES == 1 else 1
    slices = slices_of(tile, LANES)
    for part in tl.static_range(SLICES):
        seen = (number * SLICES + part) * STEP
        best, place = _raise(best, place, slices[part], seen, LANES, KIND)
    return best, place


@triton.jit
def _terms(score, threshold, slope, KIND: tl.constexpr):
    """Whether a similarity is kept, 0.0 or 1.0 (no predicate to hold on to), and its term."""
    kept = tl.where(score >= threshold, 1.0, 0.0)
    if KIND == LINEAR:
        return kept, tl.maximum(score - threshold, 0.0)
    else:
        return kept, kept * tl.exp2(tl.fma(score, slope, -threshold * slope))


@triton.jit
def _tied(best, ties, score, LANES: tl.constexpr):
    """Best and ties after a slice."""
    value = tl.max(score, 0)[None, :] if LANES == 1 else score
    risen = tl.maximum(best, value)
    here = tl.where(score == risen, 1.0, 0.0)
    if LANES == 1:
        here = tl.sum(here, 0)[None, :]
    return risen, tl.fma(ties, tl.where(best == risen, 1.0, 0.0), here)


@triton.jit
def add_sums(state, tile, threshold, slope, LANES: tl.constexpr, KIND: tl.constexpr):
    """Everything but best after a tile, to be followed by `add_maxima`; totals, counts of its rows.

    Returns (place, total[, ties]) and (totals float32, counts float32), [BLOCK_ROWS].
    """
    ROWS: tl.constexpr = tile.shape[0]
    SLICES: tl.constexpr = 1 if LANES == 1 else ROWS // LANES
    slices = slices_of(tile, LANES)
    best, place, total = state[0], state[1], state[2]
    if KIND == LINEAR:
        ties = state[3]
    row_totals = slices[:0]
    row_counts = slices[:0]
    for part in tl.static_range(SLICES):
        kept, terms = _terms(slices[part], threshold, slope, KIND)
        row_totals += (tl.sum(terms, 1),)
        row_counts += (tl.sum(kept, 1),)
        if LANES == 1:
            kept = tl.sum(kept, 0)[None, :]
            terms = tl.sum(terms, 0)[None, :]
        total += terms
        place = _counted(place, kept, LANES)
        if KIND == LINEAR:
            best, ties = _tied(best, ties, slices[part], LANES)
    of_rows = (rows_of(row_totals, LANES, ROWS), rows_of(row_counts, LANES, ROWS))
    if KIND == LINEAR:
        return (place, total, ties), of_rows
    else:
        return (place, total), of_rows


@triton.jit
def finish_columns(state, LANES: tl.constexpr, KIND: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """(value, row from the start of the strip[, total, count[, ties]]) across lanes.

    Each [BLOCK_COLUMNS]; value -inf: no negative, and the row means nothing.
    """
    best, place = state[0], state[1]
    value = tl.max(best, 0)
    at_best = best == value[None, :]
    row = tl.min(tl.where(at_best, _rows_of_places(place, LANES, BLOCK_ROWS), NOWHERE), 0)
    if KIND == 0:
        return value, row
    else:
        total = tl.sum(state[2], 0)
        count = tl.sum(_count(place, LANES), 0)
        if KIND == LINEAR:
            ties = tl.sum(tl.where(at_best, state[3], 0.0), 0).to(tl.int32)
            return value, row, total, count, ties
        else:
            return value, row, total, count


LEAST_SLOPE = float(torch.finfo(torch.float32).tiny)
"""Stands for slope 0 in the strip kernel, where it multiplies -inf: 2^(slope * x) rounds to 1 for
every x below 1e30."""

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
def _raise_rows(score, best, row, column, rows, row_keys):
    """Raise the keys of the rows of a tile, given their maxima."""
    chosen = tl.min(tl.where(score == best[:, None], column[None, :], NOWHERE), 1)
    _raise_keys(row_keys, row, row < rows, _key(best), chosen)


@triton.jit
def _add_anchors(side, anchor, length, total, count, scale, KIND: tl.constexpr):
    """Add what a tile or a strip has summed of anchors."""
    keys, sums, counts, tops = side
    inside = anchor < length
    add_totals(sums, anchor, inside, length, total, scale, KIND)
    tl.atomic_add(counts + anchor, count, mask=inside & (count > 0), sem="relaxed")


@triton.jit
def _publish_columns(
    state,
    row,
    column,
    columns,
    side,
    threshold,
    scale,
    LANES: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Column results of a strip that starts at `row`."""
    inside = column < columns
    result = finish_columns(state, LANES, KIND, BLOCK_ROWS)
    key = _key(result[0])
    _raise_keys(side[0], column, inside, key, row + result[1])
    if KIND != 0:
        _add_anchors(side, column, columns, result[2], result[3], scale, KIND)
    if KIND == LINEAR:
        raise_tops(side[3], column, inside & (result[0] >= threshold), key, result[4])


@triton.jit
def strip_item(item, segments, blocks, chunk):
    """(segment, column block) of a work item.

    Segments are taken in chunks that stay in the L2 cache together, and within a chunk all column
    blocks, each with all segments of the chunk in turn.
    """
    first = item // (chunk * blocks) * chunk
    size = tl.minimum(chunk, segments - first)
    within = item - first * blocks
    return first + within % size, within // size


@triton.jit(do_not_specialize=COUNTS)
def strip_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    mixed,
    batch_stats,
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
    chunk,
    words,
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
    """Packed keys of all rows and columns, and FIXED sums, see `results.py`.

    image, text, width: operands of `product_tile`. target, image_ids, text_ids: as in `Pairing`;
    mixed, words: see `needs_mask`. batch_stats float32 [3, parts]. row_keys [rows], column_keys
    [columns]: int64, NOTHING before. With sums: row_sums int64 [fields, rows], column_sums
    [fields, columns], row_counts, column_counts int32, zeros before, row_tops, column_tops int64,
    NOTHING before (linear kind only); None otherwise.

    segment_tiles: tiles per segment. chunk: see `strip_item`. slope > 0: it multiplies -inf.
    """
    tiles = tl.cdiv(rows, BLOCK_ROWS)
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    segments = tl.cdiv(tiles, segment_tiles)
    row_side = (row_keys, row_sums, row_counts, row_tops)
    column_side = (column_keys, column_sums, column_counts, column_tops)
    bound = read_bound(batch_stats, parts, PARTS)
    special = (bound < GREATEST_SCORE) == 0
    threshold = 0.0
    scale = 0.0
    if KIND != 0:
        threshold = read_threshold(batch_stats, parts, epsilon, PARTS)
        summing = wide_range(bound, threshold, slope, KIND) == 0
    if KIND == LINEAR:
        scale = linear_scale(bound, threshold)
    for item in range(tl.program_id(0), segments * blocks, tl.num_programs(0)):
        segment, block = strip_item(item, segments, blocks, chunk)
        first_row = segment * segment_tiles * BLOCK_ROWS
        column_start = block * BLOCK_COLUMNS
        column = column_start + tl.arange(0, BLOCK_COLUMNS)
        state = start_columns(LANES, BLOCK_COLUMNS, KIND)
        for tile in range(tl.minimum(segment_tiles, tiles - segment * segment_tiles)):
            row_start = first_row + tile * BLOCK_ROWS
            row = row_start + tl.arange(0, BLOCK_ROWS)
            # Ahead of the product, so that the bits are there when it is.
            masked = special | needs_mask(
                row_start, column_start, rows, columns, mixed, words, BLOCK_ROWS, BLOCK_COLUMNS
            )
            shape = (rows, columns, width, image_stride, text_stride)
            score = product_tile(
                image, text, row_start, column_start, shape, DESCRIPTORS, SPLIT, PRECISION,
                UPCAST, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
            )  # fmt: skip
            if masked:
                score = exclude(
                    _comparable(score), row, column, rows, columns, target, image_ids, text_ids
                )
            best = tl.max(score, 1)
            later = state[1:]
            ties = tl.zeros_like(row)
            if KIND != 0:
                reached = summing & (tl.max(best, 0) >= threshold)
                if reached:
                    later, of_rows = add_sums(state, score, threshold, slope, LANES, KIND)
                    _add_anchors(
                        row_side, row, rows, of_rows[0], of_rows[1].to(tl.int32), scale, KIND
                    )
                    if KIND == LINEAR:
                        # Not ==: the index search compares so, and the compiler would keep the
                        # predicates for it.
                        ties = tl.sum(tl.where(score >= best[:, None], 1.0, 0.0), 1).to(tl.int32)
            state = add_maxima(state[0], later[0], score, tile, LANES, KIND) + later[1:]
            _raise_rows(score, best, row, column, rows, row_keys)
            if KIND == LINEAR:
                own = (row < rows) & (best >= threshold)
                if reached:  # last, when the registers of the tile are free
                    raise_tops(row_tops, row, own, _key(best), ties)
        _publish_columns(
            state, first_row, column, columns, column_side, threshold, scale, LANES, KIND,
            BLOCK_ROWS,
        )  # fmt: skip


def strip_constants(
    tile: StripTile, dtype: torch.dtype, kind: str, split: bool, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `strip_kernel`. upcast: widen operands before the product."""
    return {"LANES": tile.lanes, **resum_constants(tile, dtype, kind, split, upcast)}


def strip_wants(image: Tensor, query: MiningQuery) -> Wants:
    """What `mine_strips` needs of a prepared batch; image: as given to `prepare`."""
    return Wants(
        aligned=True,
        split=image.dtype == torch.float32 and query.precision == "high",
        mixed=True,
        sums=query.kind,
    )


def mine_strips(
    prepared: Prepared,
    pairing: Pairing,
    query: MiningQuery,
    tile: StripTile | None = None,
    programs: int = 0,
) -> tuple[Prepared, MiningResult]:
    """Run `strip_kernel`. Its sums have to go through `resum` before they are read.

    Args:
        prepared: as `strip_wants`.
        tile, programs: other than what suits the device, which changes no key and no count; sums
            do not depend on programs either.
    """
    image, text, width = prepared.operands
    tile = tile or usual_tile(prepared, pairing, query.kind)
    row_bytes = image.shape[1] * image.element_size()
    plan = strip_plan(tile, image.shape[0], text.shape[0], row_bytes)
    result = MiningResult.fixed(prepared)
    programs = programs or usual_programs(image.device)
    split, upcast = prepared.operands.split, runtime.interpreting()
    strip_kernel[(min(programs, plan.segments * plan.blocks),)](
        *operands_of(prepared.operands, tile),
        *pairing,
        prepared.mixed,
        prepared.batch_stats,
        *(result.rows.keys, result.columns.keys),
        *(result.rows.sums, result.columns.sums),
        *(result.rows.counts, result.columns.counts),
        *(result.rows.tops, result.columns.tops),
        *(image.shape[0], text.shape[0], width, image.stride(0), text.stride(0)),
        prepared.batch_stats.shape[1],
        *(plan.segment_tiles, plan.chunk, prepared.mask_words),
        query.epsilon,
        max(query.slope, LEAST_SLOPE),
        **strip_constants(tile, image.dtype, query.kind, split, upcast),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
    return prepared, result
