# mypy: allow-untyped-defs, allow-untyped-decorators
"""Inverse lists in Triton: which anchors mined an item, by counting instead of sorting."""

from __future__ import annotations

import triton
import triton.language as tl

LAST = tl.constexpr(2**31 - 1)


@triton.jit
def place_keys(index, position, inside, batch):
    """int32 keys that sort entries by (item mined, position); one that mined nothing comes last.

    index int32, -1 for none. Outside a batch: behind everything.
    """
    item = tl.where(index >= 0, index, batch)
    return tl.where(inside, item * batch + position, LAST)


@triton.jit
def store_list(order, span, anchor, inside, counted, batch, BLOCK: tl.constexpr):
    """Write the part of an inverse list that a block of anchors knows.

    counted: sums of what `count_entries` counts, [BLOCK] twice and 0-d. order, span: pointers to
    int64 [batch].
    """
    place, start, stop = counted
    tl.store(order + place, anchor.to(tl.int64), mask=inside)
    # A list ends where the next one starts; the last of the block ends at `stop`.
    position = tl.arange(0, BLOCK)
    following = position[None, :] == position[:, None] + 1
    end = tl.sum(tl.where(following, start[None, :], 0), 1)
    end = tl.where(position == BLOCK - 1, stop, end)
    tl.store(span + anchor, (start.to(tl.int64) << 32) | end.to(tl.int64), mask=inside)


@triton.jit
def count_less(count, left, right):
    """count + (left < right), int32, for left and right in [0, 2^31): two instructions, not three.

    The sign of their difference is the answer.
    """
    return count + ((left - right).to(tl.uint32, bitcast=True) >> 31).to(tl.int32)


@triton.jit
def count_entries(counts, keys, own, anchor, batch, BLOCK: tl.constexpr):
    """Count the entries of a chunk that stand before those of the block, and before its lists.

    counts: int32 [BLOCK, CHUNK] twice, and [CHUNK] before the lists of the next block; keys [CHUNK]
    and own [BLOCK]: of `place_keys`.
    """
    place, start, stop = counts
    place = count_less(place, keys[None, :], own[:, None])
    start = count_less(start, keys[None, :], (anchor * batch)[:, None])
    return place, start, count_less(stop, keys, (tl.min(anchor, 0) + BLOCK) * batch)


@triton.jit
def sum_pair(left, right):
    """Sums along axis 1 of counters int32 [BLOCK, CHUNK], each sum below 2^15: one reduction."""
    both = tl.sum(left + (right << 16), 1)
    return both & 0xFFFF, both >> 16
