# mypy: allow-untyped-defs, allow-untyped-decorators
"""What the strip kernel knows of the columns it holds, while row tiles go by.

Comparing across lanes for every tile would cost more than the products, so every lane keeps a state
of its own over the rows it has seen (`slices.py`), and they meet at the end of a *strip*, a run of
tiles. A state is (best, place[, total[, ties]]), each [LANES, BLOCK_COLUMNS]:

    best   float32  largest similarity, -inf if none
    place  int32    number of the slice (LANES = 1: the row) where it was seen first; with sums, the
                    upper 9 bits count the kept similarities, at most one per slice: `_counted`
    total  float32  sum of the kept terms
    ties   float32  of the linear kind: how often best was seen, if it is at or above the threshold

LANES = 1 has an int64 place, whose upper half counts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.slices import row_of, rows_of, slices_of
from goal_kernels.backends.triton.states import LINEAR, NOWHERE


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
