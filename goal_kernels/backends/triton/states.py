# mypy: allow-untyped-defs, allow-untyped-decorators
"""Mining states: what is known about the negatives of one anchor seen so far, in Triton.

A *state* has five values:

    key    int32    similarity of the hardest one as an ordered integer (`encode`), EMPTY if none
    index  int32    its position, NOWHERE if none
    total  float32  relative sum over the counted negatives
    count  int32    number of them
    top    int32    negatives at or above the threshold that sit at the maximum and are not counted:
                    the hardest one itself and, for the linear kind, its exact ties

Two states over disjoint sets of negatives merge into the state of the union. When the maximum rises
from v to w, the linear total grows by (w - v) per negative and the exponential total shrinks by
exp(-beta (w - v)): only non-negative terms, no exponent above 0, and the maximum is never part of
the sum, so nothing overflows and nothing cancels.
"""

from __future__ import annotations

import triton
import triton.language as tl

LINEAR = tl.constexpr(1)
EMPTY = tl.constexpr(-(2**31))
NAN_KEY = tl.constexpr(2**31 - 1)
NOWHERE = tl.constexpr(2**31 - 1)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)


@triton.jit
def encode(value):
    """float32 -> int32 of the same order: -0.0 equals 0.0, every NaN is the largest key."""
    value = tl.where(value == 0.0, 0.0, value)
    bits = value.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & MAGNITUDE)
    return tl.where(value != value, NAN_KEY, key)


@triton.jit
def decode(key):
    """Inverse of `encode`; EMPTY becomes -inf."""
    bits = key ^ ((key >> 31) & MAGNITUDE)
    return tl.where(key == EMPTY, float("-inf"), bits.to(tl.float32, bitcast=True))


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
