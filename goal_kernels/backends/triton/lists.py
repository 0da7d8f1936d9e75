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

    counted: `count_entries` of the block. order, span: pointers to int64 [batch].
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
def count_below(place, start, stop, keys, own, anchor, batch, BLOCK: tl.constexpr):
    """Count the entries of one chunk that stand before those of the block, and before its lists.

    place, start: counters int32 [BLOCK, CHUNK]; stop: int32 [CHUNK], before the lists of the next
    block; keys [CHUNK] and own [BLOCK]: of `place_keys`.
    """
    place += (keys[None, :] < own[:, None]).to(tl.int32)
    start += (keys[None, :] < (anchor * batch)[:, None]).to(tl.int32)
    stop += (keys < (tl.min(anchor, 0) + BLOCK) * batch).to(tl.int32)
    return place, start, stop
