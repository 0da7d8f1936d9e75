# mypy: allow-untyped-defs, allow-untyped-decorators
"""The weight stage of a built-in objective in one Triton kernel.

What it computes is `goal_kernels.weights.weigh`, in float32, for both directions at once, and with
it whatever else the backward needs: for batches that are compared pair by pair also the inverse
lists. What was mined is read by `load_anchors` and `load_index` alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.formulas import anchor_value, pair_weights, triplet_weight
from goal_kernels.backends.triton.lists import count_entries, place_keys, store_list, sum_pair
from goal_kernels.backends.triton.relative import dense_relative, mean, sorted_relative

ONLY_ROWS = tl.constexpr(1)
ONLY_COLUMNS = tl.constexpr(2)
SUM_CHUNK = tl.constexpr(256)


@triton.jit
def load_anchors(mined, side, anchor, inside, batch, KIND: tl.constexpr):
    """value float32, index int32 (-1: none), sum float32, count int32 of anchors: 4 x [BLOCK].

    mined: pointers to values, indices, sums and counts of `Found`; side: 0 rows, 1 columns.
    """
    values, indices, sums, counts = mined
    place = side * tl.cast(batch, tl.int64) + anchor
    value = tl.load(values + batch + place, mask=inside, other=0.0)
    index = tl.load(indices + place, mask=inside, other=-1).to(tl.int32)
    total = tl.zeros_like(value)
    count = tl.zeros_like(index)
    if KIND != 0:
        total = tl.load(sums + place, mask=inside, other=0.0)
        count = tl.load(counts + place, mask=inside, other=0).to(tl.int32)
    return value, index, total, count


@triton.jit
def load_index(mined, side, anchor, inside, batch):
    """The index of `load_anchors` alone."""
    _, indices, _, _ = mined
    place = side * tl.cast(batch, tl.int64) + anchor
    return tl.load(indices + place, mask=inside, other=-1).to(tl.int32)


@triton.jit
def weigh_anchors(
    positive, anchors, relative_positive, scalars, TRIPLET: tl.constexpr, PAIR: tl.constexpr
):
    """a = T P+, b = T P- and the value of each anchor, 0 where it has no negative: 3 x [BLOCK]."""
    negative, index, total, count = anchors
    tau, alpha, beta, lam, margin = scalars
    valid = index >= 0
    # A finite stand-in for the -inf of an absent negative.
    n = tl.where(valid, negative, positive)
    triplet = triplet_weight(positive, n, tau, margin, TRIPLET)
    relative_negative = mean(total, count)
    plus, minus = pair_weights(
        positive, n, relative_positive, relative_negative, alpha, beta, lam, PAIR
    )
    value = anchor_value(positive, n, margin, TRIPLET, PAIR)
    return (
        tl.where(valid, triplet * plus, 0.0),
        tl.where(valid, triplet * minus, 0.0),
        tl.where(valid, value, 0.0),
    )


@triton.jit
def write_list(
    mined, hardest, side, anchor, inside, batch, BLOCK: tl.constexpr, CHUNK: tl.constexpr
):
    """The block's part of the lists of those who mined each image (side 0) or each text (side 1).

    Image i is mined by texts, so its list holds columns.
    """
    miner = 1 - side
    own = place_keys(load_index(mined, miner, anchor, inside, batch), anchor, inside, batch)
    none = tl.zeros([BLOCK, CHUNK], tl.int32)
    counts = none, none, tl.zeros([CHUNK], tl.int32)
    for begin in range(0, batch, CHUNK):
        other = begin + tl.arange(0, CHUNK)
        listed = other < batch
        keys = place_keys(load_index(mined, miner, other, listed, batch), other, listed, batch)
        counts = count_entries(counts, keys, own, anchor, batch, BLOCK)
    place, start = sum_pair(counts[0], counts[1])
    counted = place, start, tl.sum(counts[2], 0)
    length = tl.cast(batch, tl.int64)
    order = hardest + (2 + side) * length
    store_list(order, order + 2 * length, anchor, inside, counted, batch, BLOCK)


@triton.jit
def add_value(block_value, value, partials, ticket):
    """Sum the values of all programs in their order; the last program to come here does it.

    partials: float64 [programs]; ticket: int32, 0 before the launch and again after it.
    """
    tl.store(partials + tl.program_id(0), block_value)
    tl.debug_barrier()
    programs = tl.num_programs(0)
    before = tl.atomic_add(ticket, 1, sem="acq_rel")
    if before == programs - 1:
        total = tl.zeros([SUM_CHUNK], tl.float64)
        for start in range(0, programs, SUM_CHUNK):
            part = start + tl.arange(0, SUM_CHUNK)
            total += tl.load(partials + part, mask=part < programs, other=0.0)
        tl.store(value, tl.sum(total, 0).to(tl.float32))
        tl.store(ticket, 0)


@triton.jit
def store_anchors(vectors, hardest, scales, anchor, inside, batch, positive, row, column):
    """What was found, as `Forward` holds it: similarities, indices, scales."""
    length = tl.cast(batch, tl.int64)
    place = vectors + anchor
    tl.store(place, positive, mask=inside)
    tl.store(place + length, row[0], mask=inside)
    tl.store(place + 2 * length, column[0], mask=inside)
    tl.store(hardest + anchor, row[1].to(tl.int64), mask=inside)
    tl.store(hardest + length + anchor, column[1].to(tl.int64), mask=inside)
    if scales is not None:
        for side in tl.static_range(2):
            scale = tl.load(scales + side * length + anchor, mask=inside)
            tl.store(place + (6 + side) * length, scale, mask=inside)


@triton.jit
def weigh_kernel(
    values,
    indices,
    sums,
    counts,
    scales,
    pool,
    prefix,
    vectors,
    hardest,
    value,
    partials,
    ticket,
    batch,
    steps,
    tau,
    alpha,
    beta,
    lam,
    epsilon,
    margin,
    TRIPLET: tl.constexpr,
    PAIR: tl.constexpr,
    DIRECTION: tl.constexpr,
    KIND: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Everything `Forward` holds, from what was found in a square batch of B = batch.

    values, indices, sums, counts, scales: the tensors of `Found`; sums, counts None when KIND is 0,
    scales None without normalisation. pool, prefix, steps: as in `sorted_relative`, None and 0 when
    DENSE or KIND is 0. vectors float32 [6 or 8, B]; hardest int64 [6, B], of which rows 2 to 5
    are written when DENSE; value float32 0-d; partials, ticket: as in `add_value`. A program weighs
    BLOCK anchors of each direction.
    """
    anchor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = anchor < batch
    mined = values, indices, sums, counts
    scalars = tau, alpha, beta, lam, margin
    positive = tl.load(values + anchor, mask=inside, other=0.0)
    row = load_anchors(mined, 0, anchor, inside, batch, KIND)
    column = load_anchors(mined, 1, anchor, inside, batch, KIND)
    row_relative = tl.zeros([BLOCK], tl.float32)
    column_relative = row_relative
    if KIND != 0:
        row_limit = row[0] + epsilon
        column_limit = column[0] + epsilon
        if DENSE:
            row_relative, column_relative = dense_relative(
                values, positive, anchor, row_limit, column_limit, batch, alpha, KIND, BLOCK, CHUNK
            )
        else:
            row_relative = sorted_relative(
                pool, prefix, positive, row_limit, batch, steps, alpha, KIND
            )
            column_relative = sorted_relative(
                pool, prefix, positive, column_limit, batch, steps, alpha, KIND
            )
    none = tl.zeros([BLOCK], tl.float32)
    row_terms = none, none, none
    column_terms = none, none, none
    if DIRECTION != ONLY_COLUMNS:
        row_terms = weigh_anchors(positive, row, row_relative, scalars, TRIPLET, PAIR)
    if DIRECTION != ONLY_ROWS:
        column_terms = weigh_anchors(positive, column, column_relative, scalars, TRIPLET, PAIR)
    store_anchors(vectors, hardest, scales, anchor, inside, batch, positive, row, column)
    weights = vectors + 3 * tl.cast(batch, tl.int64) + anchor
    tl.store(weights, row_terms[0] + column_terms[0], mask=inside)
    tl.store(weights + batch, row_terms[1], mask=inside)
    tl.store(weights + 2 * tl.cast(batch, tl.int64), column_terms[1], mask=inside)
    if DENSE:
        for side in tl.static_range(2):
            write_list(mined, hardest, side, anchor, inside, batch, BLOCK, CHUNK)
    anchor_values = row_terms[2].to(tl.float64) + column_terms[2].to(tl.float64)
    block_value = tl.sum(tl.where(inside, anchor_values, 0.0), 0)
    add_value(block_value, value, partials, ticket)
