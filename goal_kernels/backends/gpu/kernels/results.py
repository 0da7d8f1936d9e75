# mypy: allow-untyped-defs, allow-untyped-decorators
"""Reading what a mining kernel left of an anchor, and `finish_kernel`, which writes it as `Found`.

Mining kernels leave packed keys (`common.py`) and, of relative sums, one of two forms:

RUNNING_MAXIMA  int32 [5 fields, parts, length], see `tile.py`, over disjoint negatives.
FIXED           int64 [fields, length], sums over all negatives at or above the threshold, the
                hardest one included, of S - threshold or exp2(slope (S - threshold)); int32 counts
                [length]; and tops, of the linear kind: see `fixed_sums.py`. Where `wide_range`
                holds, sums and counts are final instead: the bits of a float32 in field 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.answers import Found
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import (
    FINISH_BLOCK,
    KIND_CODES,
    LAUNCH_OPTIONS,
    PARTS,
    WARPS,
    row_block,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    LINEAR,
    NAN_KEY,
    NOTHING,
    decode,
    pair_score,
    read_bound,
    read_threshold,
    row_pointers,
    unpack,
    wide_range,
)
from goal_kernels.backends.gpu.kernels.fixed_sums import linear_scale, read_totals
from goal_kernels.backends.gpu.kernels.tile import load_state
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Prepared

RUNNING_MAXIMA = tl.constexpr(configs.RUNNING_MAXIMA)
FIXED = tl.constexpr(configs.FIXED)

CHUNK = tl.constexpr(16)
"""Parts that are read at once."""


@triton.jit
def _running_sums(states, key, index, anchor, inside, length, parts, slope, KIND: tl.constexpr):
    """Total and count from running maxima, given the maximum over all of them."""
    field = tl.cast(parts, tl.int64) * length
    value = decode(key)
    total = tl.zeros_like(value)
    count = tl.zeros_like(key)
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)
        place = part[:, None].to(tl.int64) * length + anchor[None, :]
        mask = (part < parts)[:, None] & inside[None, :]
        top_key, top_index, sums, counted, top = load_state(states, field, place, mask)
        tied = top_key == key[None, :]
        gap = tl.where(tied, 0.0, value[None, :] - decode(top_key))
        if KIND == LINEAR:
            top = tl.where(tied, 0, top)
            sums += tl.where(counted + top > 0, (counted + top).to(tl.float32) * gap, 0.0)
        else:
            top = tl.where(tied & (top_index == index[None, :]), 0, top)
            weight = tl.exp2(-slope * gap)
            sums = tl.where(counted + top > 0, (sums + top.to(tl.float32)) * weight, 0.0)
        total += tl.sum(sums, 0)
        count += tl.sum(counted + top, 0)
    if KIND == LINEAR:
        # No similarity is below NaN, so a NaN maximum counts nothing.
        numeric = key != NAN_KEY
        total = tl.where(numeric, total, 0.0)
        count = tl.where(numeric, count, 0)
    return total, count


@triton.jit
def _fixed_sums(
    sums,
    counts,
    tops,
    key,
    anchor,
    inside,
    length,
    threshold,
    bound,
    slope,
    KIND: tl.constexpr,
):
    """Total and count from sums that start at the threshold."""
    value = decode(key)
    count = tl.load(counts + anchor, mask=inside, other=0)
    started = read_totals(sums, anchor, inside, length, linear_scale(bound, threshold), KIND)
    reached = (value >= threshold).to(tl.int32)
    if KIND == LINEAR:
        top = tl.load(tops + anchor, mask=inside, other=NOTHING)
        ties = tl.where((top >> 32).to(tl.int32) == key, top.to(tl.int32), 0)
        total = count.to(tl.float32) * (value - threshold) - started
        counted = count - ties * reached
    else:
        total = started * tl.exp2(slope * (threshold - value)) - reached.to(tl.float32)
        counted = count - reached
    total = tl.where(counted > 0, tl.maximum(total, 0.0), 0.0)
    wide = wide_range(bound, threshold, slope, KIND)
    final = tl.load(sums + anchor, mask=inside, other=0).to(tl.int32).to(tl.float32, bitcast=True)
    return tl.where(wide, final, total), tl.where(wide, count, counted)


@triton.jit
def load_mined(
    keys,
    sums,
    counts,
    tops,
    anchor,
    inside,
    length,
    parts,
    threshold,
    bound,
    slope,
    KIND: tl.constexpr,
    SUMS: tl.constexpr,
):
    """value float32, index int32 (-1 if none), total float32, count int32 of anchors.

    keys int64 [length]; sums, counts, tops: see above, None where the form has none. anchor int32
    [BLOCK]. threshold, bound: 0-d, read by FIXED alone. Not `inside`: as if there was no negative.
    """
    key, index = unpack(tl.load(keys + anchor, mask=inside, other=NOTHING))
    total = tl.zeros(key.shape, tl.float32)
    count = tl.zeros_like(key)
    if SUMS == RUNNING_MAXIMA:
        total, count = _running_sums(sums, key, index, anchor, inside, length, parts, slope, KIND)
    if SUMS == FIXED:
        total, count = _fixed_sums(
            sums,
            counts,
            tops,
            key,
            anchor,
            inside,
            length,
            threshold,
            bound,
            slope,
            KIND,
        )
    return decode(key), index, total, count


@triton.jit
def rescored(value, index, anchor, left, right, scales, width, WIDTH: tl.constexpr):
    """Similarity of anchors and what they mined, in float32; `value` where they mined nothing.

    left, right: (embeddings, row stride, position of their first scale) of the anchors' side and
    of the other; scales: float32 of both sides, or None.
    """
    left_base, left_stride, left_first = left
    right_base, right_stride, right_first = right
    found = index >= 0
    left_scale = None
    right_scale = None
    if scales is not None:
        left_scale = tl.load(scales + left_first + anchor, mask=found, other=0.0)
        right_scale = tl.load(scales + right_first + index, mask=found, other=0.0)
    left_rows = row_pointers(left_base, anchor, left_stride)
    right_rows = row_pointers(right_base, index, right_stride)
    score = pair_score(left_rows, right_rows, left_scale, right_scale, found, width, WIDTH)
    return tl.where(found, score, value)


@triton.jit
def _store_found(mined, outputs, place, first, inside, KIND: tl.constexpr):
    """Write anchors to `place` of the outputs; values begin `first` elements in."""
    value, index, total, count = mined
    values, indices, sums, counts = outputs
    tl.store(values + first + place, value, mask=inside)
    tl.store(indices + place, index.to(tl.int64), mask=inside)
    if KIND != 0:
        tl.store(sums + place, total, mask=inside)
        tl.store(counts + place, count.to(tl.int64), mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def finish_kernel(
    values,
    indices,
    out_sums,
    out_counts,
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
    scales,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    row_parts,
    column_parts,
    parts,
    slope,
    epsilon,
    KIND: tl.constexpr,
    SUMS: tl.constexpr,
    RESCORE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`Found` of what was mined: rows first, BLOCK anchors of one side per program.

    values float32 [rows + rows + columns], the first `rows` of which are left alone; indices int64,
    out_sums float32, out_counts int64 [rows + columns], the last two None if KIND is 0. What was
    mined: see `load_mined`. image, text: what was mined from, raw, and their scales (float32
    [rows + columns] or None); read with RESCORE alone, which computes the values from them.
    """
    row_blocks = tl.cdiv(rows, BLOCK)
    block = tl.program_id(0)
    threshold = 0.0
    bound = 0.0
    if SUMS == FIXED:
        threshold = read_threshold(batch_stats, parts, epsilon, PARTS)
        bound = read_bound(batch_stats, parts, PARTS)
    images = (image, image_stride, 0)
    texts = (text, text_stride, rows)
    outputs = (values, indices, out_sums, out_counts)
    if block < row_blocks:
        anchor = block * BLOCK + tl.arange(0, BLOCK)
        inside = anchor < rows
        value, index, total, count = load_mined(
            row_keys,
            row_sums,
            row_counts,
            row_tops,
            anchor,
            inside,
            rows,
            row_parts,
            threshold,
            bound,
            slope,
            KIND,
            SUMS,
        )
        if RESCORE:
            value = rescored(value, index, anchor, images, texts, scales, width, WIDTH)
        _store_found((value, index, total, count), outputs, anchor.to(tl.int64), rows, inside, KIND)
    else:
        anchor = (block - row_blocks) * BLOCK + tl.arange(0, BLOCK)
        inside = anchor < columns
        value, index, total, count = load_mined(
            column_keys,
            column_sums,
            column_counts,
            column_tops,
            anchor,
            inside,
            columns,
            column_parts,
            threshold,
            bound,
            slope,
            KIND,
            SUMS,
        )
        if RESCORE:
            value = rescored(value, index, anchor, texts, images, scales, width, WIDTH)
        place = anchor.to(tl.int64) + rows
        _store_found((value, index, total, count), outputs, place, rows, inside, KIND)


def finish_constants(kind: str, sums: int, rescore: bool, width: int) -> dict[str, int]:
    """Compile-time arguments of `finish_kernel`; sums: the form of the relative sums."""
    rows = row_block(width)
    return {
        "KIND": KIND_CODES[kind],
        "SUMS": sums,
        "RESCORE": rescore,
        "PARTS": PARTS,
        "BLOCK": rows["ROWS"] if rescore else FINISH_BLOCK,
        "WIDTH": rows["WIDTH"],
    }


def finish(prepared: Prepared, result: MiningResult, query: MiningQuery, found: Found) -> None:
    """Run `finish_kernel`, which fills `found` but for positives and scales."""
    image, text = prepared.image, prepared.text
    (rows, width), columns = image.shape, text.shape[0]
    constants = finish_constants(query.kind, result.form, prepared.rescores(query), width)
    block = constants["BLOCK"]
    finish_kernel[(-(-rows // block) - (-columns // block),)](
        found.values,
        found.indices,
        *((None, None) if query.kind == "none" else (found.sums, found.counts)),
        prepared.batch_stats,
        *(result.rows.keys, result.columns.keys),
        *(result.rows.sums, result.columns.sums),
        *(result.rows.counts, result.columns.counts),
        *(result.rows.tops, result.columns.tops),
        *(image, text, prepared.scales),
        *(rows, columns, width),
        *(image.stride(0), text.stride(0)),
        *(result.rows.parts, result.columns.parts),
        prepared.batch_stats.shape[1],
        query.slope,
        query.epsilon,
        **constants,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
