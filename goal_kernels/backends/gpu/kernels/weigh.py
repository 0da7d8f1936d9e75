# mypy: allow-untyped-defs, allow-untyped-decorators
"""The weight stage of a built-in objective in one kernel.

What it computes is `goal_kernels.weights.weigh`, in float32, for both directions at once, with the
inverse lists that the backward needs for batches that are compared pair by pair.

The elements are twins of `goal_kernels.elements`: p and n are the similarities of anchors to their
positive and to their hardest negative. Divisions round correctly, so that zero, infinity and NaN
come out as they do in torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from goal_kernels.backends.answers import VECTORS, Forward
from goal_kernels.backends.base import Scalars, WeightStage
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import (
    DENSE_BLOCK,
    DENSE_CHUNK,
    DIRECTION_CODES,
    KIND_CODES,
    LAUNCH_OPTIONS,
    PAIR_CODES,
    PARTS,
    SORTED_BLOCK,
    TRIPLET_CODES,
    WARPS,
    row_block,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    NOTHING,
    read_bound,
    read_threshold,
    unpack,
)
from goal_kernels.backends.gpu.kernels.gather import (
    count_entries,
    fill_lists,
    place_keys,
    store_list,
    sum_pair,
)
from goal_kernels.backends.gpu.kernels.relative import (
    Pool,
    dense_relative,
    mean,
    sorted_pool,
    sorted_relative,
)
from goal_kernels.backends.gpu.kernels.results import FIXED, load_mined, rescored
from goal_kernels.backends.gpu.records import FLOAT32_MAX, MiningQuery, MiningResult, Prepared
from goal_kernels.constants import CIRCLE_OFFSET

NCA = tl.constexpr(TRIPLET_CODES["nca"])
CIRCLE = tl.constexpr(TRIPLET_CODES["circle"])
HINGE = tl.constexpr(TRIPLET_CODES["hinge"])
CONSTANT_PAIR = tl.constexpr(PAIR_CODES["constant"])
LINEAR_PAIR = tl.constexpr(PAIR_CODES["linear"])
SIGMOID_PAIR = tl.constexpr(PAIR_CODES["sigmoid"])
LINEAR_MS_PAIR = tl.constexpr(PAIR_CODES["linear_ms"])
OFFSET = tl.constexpr(CIRCLE_OFFSET)


@triton.jit
def inverse(x):
    """1 / x, correctly rounded."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), x)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return inverse(1.0 + tl.exp(-x))


@triton.jit
def triplet_weight(p, n, tau, margin, TRIPLET: tl.constexpr):
    """T, the shape of p."""
    if TRIPLET == NCA:
        weight = sigmoid(-tau * (p - n))
    elif TRIPLET == CIRCLE:
        weight = sigmoid(-tau * (p * (2.0 - p) - n * n - OFFSET))
    elif TRIPLET == HINGE:
        violated = margin + n - p
        weight = tl.where(violated != violated, violated, (violated > 0.0).to(tl.float32))
    else:
        weight = tl.full(p.shape, 1.0, tl.float32)
    return weight


@triton.jit
def pair_weights(p, n, relative_positive, relative_negative, alpha, beta, lam, PAIR: tl.constexpr):
    """P+ and P-; the relative similarities count for the _ms elements only."""
    if PAIR == CONSTANT_PAIR:
        positive = tl.full(p.shape, 1.0, tl.float32)
        negative = positive
    elif PAIR == LINEAR_PAIR:
        positive = 1.0 - p
        negative = n
    elif PAIR == SIGMOID_PAIR:
        positive = sigmoid(-alpha * (p - lam))
        negative = sigmoid(beta * (n - lam))
    elif PAIR == LINEAR_MS_PAIR:
        positive = (1.0 - relative_positive) * (1.0 - p)
        negative = (1.0 + relative_negative) * n
    else:
        positive = inverse(tl.exp(alpha * (p - lam)) + relative_positive)
        negative = inverse(tl.exp(-beta * (n - lam)) + relative_negative)
    return positive, negative


@triton.jit
def anchor_value(p, n, margin, TRIPLET: tl.constexpr, PAIR: tl.constexpr):
    """What an anchor adds to the reported value: the violation, or the hinge loss itself."""
    value = n - p
    if TRIPLET == HINGE and PAIR == CONSTANT_PAIR:
        value += margin
        value = tl.where(value <= 0.0, 0.0, value)  # NaN stays NaN
    return value


ONLY_ROWS = tl.constexpr(1)
ONLY_COLUMNS = tl.constexpr(2)
SUM_CHUNK = tl.constexpr(256)


@triton.jit
def load_anchors(
    mined,
    state,
    others,
    anchor,
    inside,
    batch,
    KIND: tl.constexpr,
    SUMS: tl.constexpr,
    RESCORE: tl.constexpr,
    NORMALIZE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """value float32, index int32 (-1: none), sum float32, count int32 of anchors: 4 x [BLOCK].

    mined: keys, sums, counts, tops and number of parts of the anchors' side. state: threshold,
    bound and slope. others: what `rescored` needs, the anchors' side, the other and the scales.
    """
    keys, sums, counts, tops, parts = mined
    threshold, bound, slope = state
    value, index, total, count = load_mined(
        *(keys, sums, counts, tops, anchor, inside, batch, parts, threshold, bound, slope),
        *(KIND, SUMS),
    )
    if RESCORE:
        left, right, scales, width = others
        if NORMALIZE:
            value = rescored(value, index, anchor, left, right, scales, width, WIDTH)
        else:
            value = rescored(value, index, anchor, left, right, None, width, WIDTH)
    return value, index, total, count


@triton.jit
def load_index(mined, anchor, inside):
    """The index of `load_anchors` alone."""
    return unpack(tl.load(mined[0] + anchor, mask=inside, other=NOTHING))[1]


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
    miners, hardest, side, anchor, inside, batch, BLOCK: tl.constexpr, CHUNK: tl.constexpr
):
    """The block's part of the lists of those who mined each image (side 0) or each text (side 1).

    miners: what was mined by the other side; an image is mined by texts, its list holds columns.
    """
    own = place_keys(load_index(miners, anchor, inside), anchor, inside, batch)
    none = tl.zeros([BLOCK, CHUNK], tl.int32)
    counts = none, none, tl.zeros([CHUNK], tl.int32)
    for begin in range(0, batch, CHUNK):
        other = begin + tl.arange(0, CHUNK)
        listed = other < batch
        keys = place_keys(load_index(miners, other, listed), other, listed, batch)
        counts = count_entries(counts, keys, own, anchor, batch, BLOCK)
    place, start = sum_pair(counts[0], counts[1])
    counted = place, start, tl.sum(counts[2], 0)
    length = tl.cast(batch, tl.int64)
    order = hardest + (2 + side) * length
    store_list(order, order + 2 * length, anchor, inside, counted, batch, BLOCK)


@triton.jit
def add_value(block_value, value, partials, ticket):
    """Sum the values of all programs in their order; the last program to come here does it.

    partials: float64 [programs]; ticket: int32, 0 before the launch.
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


@triton.jit
def store_anchors(vectors, hardest, anchor, inside, batch, row, column):
    """What was found, as `Forward` holds it: similarities and indices."""
    length = tl.cast(batch, tl.int64)
    tl.store(vectors + length + anchor, row[0], mask=inside)
    tl.store(vectors + 2 * length + anchor, column[0], mask=inside)
    tl.store(hardest + anchor, row[1].to(tl.int64), mask=inside)
    tl.store(hardest + length + anchor, column[1].to(tl.int64), mask=inside)


@triton.jit
def relative_positives(
    vectors,
    positive,
    anchor,
    row,
    column,
    look_up,
    batch,
    alpha,
    epsilon,
    KIND: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """R+ of both directions, zeros if KIND is 0: 2 x float32 [BLOCK]."""
    row_relative = tl.zeros([BLOCK], tl.float32)
    column_relative = row_relative
    if KIND != 0:
        row_limit = row[0] + epsilon
        column_limit = column[0] + epsilon
        if DENSE:
            row_relative, column_relative = dense_relative(
                vectors, positive, anchor, row_limit, column_limit, batch, alpha, KIND, BLOCK, CHUNK
            )
        else:
            pool, prefix, steps = look_up
            row_relative = sorted_relative(
                pool, prefix, positive, row_limit, batch, steps, alpha, KIND
            )
            column_relative = sorted_relative(
                pool, prefix, positive, column_limit, batch, steps, alpha, KIND
            )
    return row_relative, column_relative


@triton.jit(do_not_specialize=COUNTS)
def weigh_kernel(
    batch_stats,
    row_keys,
    column_keys,
    row_sums,
    column_sums,
    row_counts,
    column_counts,
    row_tops,
    column_tops,
    image,
    text,
    pool,
    prefix,
    vectors,
    hardest,
    value,
    partials,
    ticket,
    batch,
    width,
    image_stride,
    text_stride,
    row_parts,
    column_parts,
    parts,
    steps,
    slope,
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
    SUMS: tl.constexpr,
    RESCORE: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DENSE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Everything `Forward` holds, from what was mined in a square batch of B = batch.

    batch_stats, keys, sums, counts, tops: what mining left, see `results.py`. image, text: raw
    rows, read with RESCORE alone, which computes the similarities from them. pool, prefix,
    steps: as in `sorted_relative`, None and 0 when DENSE or KIND is 0. vectors float32 [6 or 8, B]:
    positives in row 0 and, with NORMALIZE, scales in rows 6 and 7 are there already. hardest int64
    [6, B], of which rows 2 to 5 are written when DENSE; value float32 0-d; partials, ticket: as in
    `add_value`. A program weighs BLOCK anchors of each direction.
    """
    anchor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = anchor < batch
    length = tl.cast(batch, tl.int64)
    threshold = 0.0
    bound = 0.0
    if SUMS == FIXED:
        threshold = read_threshold(batch_stats, parts, epsilon, PARTS)
        bound = read_bound(batch_stats, parts, PARTS)
    state = threshold, bound, slope
    rows = row_keys, row_sums, row_counts, row_tops, row_parts
    columns = column_keys, column_sums, column_counts, column_tops, column_parts
    images = image, image_stride, 0
    texts = text, text_stride, batch
    scales = vectors + 6 * length
    row = load_anchors(
        *(rows, state, (images, texts, scales, width), anchor, inside, batch),
        *(KIND, SUMS, RESCORE, NORMALIZE, WIDTH),
    )
    column = load_anchors(
        *(columns, state, (texts, images, scales, width), anchor, inside, batch),
        *(KIND, SUMS, RESCORE, NORMALIZE, WIDTH),
    )
    scalars = tau, alpha, beta, lam, margin
    positive = tl.load(vectors + anchor, mask=inside, other=0.0)
    row_relative, column_relative = relative_positives(
        *(vectors, positive, anchor, row, column, (pool, prefix, steps), batch, alpha, epsilon),
        *(KIND, DENSE, BLOCK, CHUNK),
    )
    none = tl.zeros([BLOCK], tl.float32)
    row_terms = none, none, none
    column_terms = none, none, none
    if DIRECTION != ONLY_COLUMNS:
        row_terms = weigh_anchors(positive, row, row_relative, scalars, TRIPLET, PAIR)
    if DIRECTION != ONLY_ROWS:
        column_terms = weigh_anchors(positive, column, column_relative, scalars, TRIPLET, PAIR)
    store_anchors(vectors, hardest, anchor, inside, batch, row, column)
    weights = vectors + 3 * length + anchor
    tl.store(weights, row_terms[0] + column_terms[0], mask=inside)
    tl.store(weights + length, row_terms[1], mask=inside)
    tl.store(weights + 2 * length, column_terms[1], mask=inside)
    if DENSE:
        write_list(columns, hardest, 0, anchor, inside, batch, BLOCK, CHUNK)
        write_list(rows, hardest, 1, anchor, inside, batch, BLOCK, CHUNK)
    anchor_values = row_terms[2].to(tl.float64) + column_terms[2].to(tl.float64)
    block_value = tl.sum(tl.where(inside, anchor_values, 0.0), 0)
    add_value(block_value, value, partials, ticket)


def weigh_constants(
    objective: tuple[str, str, str],
    mining: tuple[str, int, bool],
    normalize: bool,
    dense: bool,
    width: int,
) -> dict[str, int]:
    """Compile-time arguments of `weigh_kernel`.

    Args:
        objective: triplet, pair, direction.
        mining: kind and form of the relative sums; whether similarities are recomputed.
        width: of the embeddings.
    """
    triplet, pair, direction = objective
    kind, sums, rescore = mining
    rows = row_block(width)
    sparse_block = rows["ROWS"] if rescore else SORTED_BLOCK
    return {
        "TRIPLET": TRIPLET_CODES[triplet],
        "PAIR": PAIR_CODES[pair],
        "DIRECTION": DIRECTION_CODES[direction],
        "KIND": KIND_CODES[kind],
        "SUMS": sums,
        "RESCORE": rescore,
        "NORMALIZE": normalize,
        "DENSE": dense,
        "PARTS": PARTS,
        "BLOCK": DENSE_BLOCK if dense else sparse_block,
        "CHUNK": DENSE_CHUNK,
        "WIDTH": rows["WIDTH"],
    }


def weigh(
    prepared: Prepared,
    mined: MiningResult,
    query: MiningQuery,
    stage: WeightStage,
    result: Forward,
) -> None:
    """Run `weigh_kernel`, which fills `result` but for positives and scales, then the lists."""
    image, text = prepared.image, prepared.text
    batch, width = image.shape
    dense = batch <= configs.DENSE_LIMIT
    rescore = prepared.rescores(query)
    constants = weigh_constants(
        (stage.triplet, stage.pair, stage.direction),
        (query.kind, mined.form, rescore),
        len(result.vectors) > VECTORS,
        dense,
        width,
    )
    programs = -(-batch // constants["BLOCK"])
    pool = Pool()
    if not dense and query.kind != "none":
        pool = sorted_pool(result.vectors[0], query.kind, stage.scalars.alpha)
    weigh_kernel[(programs,)](
        prepared.batch_stats,
        *(mined.rows.keys, mined.columns.keys),
        *(mined.rows.sums, mined.columns.sums),
        *(mined.rows.counts, mined.columns.counts),
        *(mined.rows.tops, mined.columns.tops),
        *(image, text),
        *(pool.ascending, pool.prefix),
        *(result.vectors, result.hardest, result.value),
        image.new_empty(programs, dtype=torch.float64),
        prepared.ticket,
        *(batch, width, image.stride(0), text.stride(0)),
        *(mined.rows.parts, mined.columns.parts, prepared.batch_stats.shape[1]),
        pool.steps,
        query.slope,
        *_finite(stage.scalars),
        **constants,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    if not dense:
        fill_lists(result.hardest)


def _finite(scalars: Scalars) -> tuple[float, ...]:
    """The hyper-parameters within float32, so that a product of one with 0 stays 0."""
    return tuple(max(-FLOAT32_MAX, min(x, FLOAT32_MAX)) for x in scalars)
